// On every page: times in the reader's zone, and results in a drawer where a page has one.
"use strict";

document.documentElement.classList.add("o-js");

(() => {
    const exact = new Intl.DateTimeFormat(undefined, {dateStyle: "full", timeStyle: "long"});
    const day = new Intl.DateTimeFormat(undefined, {dateStyle: "medium", timeStyle: "short"});
    const clock = new Intl.DateTimeFormat(undefined, {timeStyle: "medium"});
    const FOUND = "o-found"; // names of highlights, as in admin.css
    const CURRENT = "o-found-current";

    function localTimes(root) {
        for (const element of root.querySelectorAll("time[datetime]")) {
            const moment = new Date(element.dateTime);
            if (Number.isNaN(moment.getTime())) continue;
            element.textContent = ("clock" in element.dataset ? clock : day).format(moment);
            element.title = exact.format(moment);
        }
    }

    // ------------------------------------------------------------ find in what a device printed, and copy it
    function ranges(root, wanted) {
        const found = [];
        for (const block of root.querySelectorAll("pre[data-stream]")) {
            const nodes = [];
            const walker = document.createTreeWalker(block, NodeFilter.SHOW_TEXT);
            let length = 0;
            while (walker.nextNode()) {
                nodes.push([length, walker.currentNode]);
                length += walker.currentNode.length;
            }
            const text = block.textContent.toLowerCase();
            let place = 0;
            const point = (offset) => {
                while (place + 1 < nodes.length && nodes[place + 1][0] <= offset) place += 1;
                return [nodes[place][1], Math.min(offset - nodes[place][0], nodes[place][1].length)];
            };
            for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + wanted.length)) {
                const range = new Range();
                range.setStart(...point(at));
                range.setEnd(...point(at + wanted.length));
                found.push(range);
            }
        }
        return found;
    }

    function outputTools(root) {
        for (const button of root.querySelectorAll("[data-copy]")) {
            button.hidden = !navigator.clipboard; // only where the address is https or this machine
            button.addEventListener("click", async () => {
                await navigator.clipboard.writeText(root.querySelector(`pre[data-stream=${button.dataset.copy}]`).textContent);
                button.textContent = "Copied";
                window.setTimeout(() => { button.textContent = "Copy"; }, 2000);
            });
        }
        const tools = root.querySelector("[data-find-tools]");
        if (!tools || !CSS.highlights) return;
        tools.hidden = false;
        const field = tools.querySelector("[data-find-text]");
        const status = tools.querySelector("[data-find-status]");
        let found = [];
        let current = -1;
        const step = () => {
            current = found.length ? (current + 1) % found.length : -1;
            CSS.highlights.delete(CURRENT);
            if (current < 0) return;
            CSS.highlights.set(CURRENT, new Highlight(found[current]));
            found[current].startContainer.parentElement.closest("pre").scrollIntoView({block: "nearest"});
            const block = found[current].startContainer.parentElement.closest("pre");
            block.scrollTop += found[current].getBoundingClientRect().top - block.getBoundingClientRect().top - 40; // pixels
            status.textContent = `${current + 1} of ${found.length}`;
        };
        field.addEventListener("input", () => {
            const wanted = field.value.toLowerCase();
            found = wanted ? ranges(root, wanted) : [];
            current = -1;
            CSS.highlights.set(FOUND, new Highlight(...found));
            status.textContent = wanted ? "not there" : "";
            step();
        });
        field.addEventListener("keydown", (event) => {
            if (event.key !== "Enter") return;
            event.preventDefault();
            step();
        });
        tools.querySelector("[data-find-next]").addEventListener("click", step);
    }

    // ------------------------------------------------------------ the drawer
    async function openDrawer(address) {
        const drawer = document.getElementById("drawer");
        const body = drawer.querySelector("[data-body]");
        let text;
        try {
            const reply = await fetch(`${address}?fragment=1`, {credentials: "same-origin"});
            if (!reply.ok || reply.redirected) throw new Error(String(reply.status));
            text = await reply.text();
        } catch {
            window.location.assign(address); // its own page says what is wrong
            return;
        }
        body.innerHTML = text; // escaped by the server's template
        localTimes(body);
        outputTools(body);
        drawer.showModal();
        drawer.addEventListener("close", () => {
            CSS.highlights?.clear();
            // the table may have been drawn anew meanwhile
            document.querySelector(`a[data-drawer][href="${CSS.escape(address)}"]`)?.focus();
        }, {once: true});
    }

    document.addEventListener("click", (event) => {
        const link = event.target.closest("a[data-drawer]");
        if (!link || !document.getElementById("drawer")) return;
        if (event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
        event.preventDefault();
        openDrawer(link.getAttribute("href"));
    });

    // ------------------------------------------------------------ what takes the server longer, once the page is there
    for (const place of document.querySelectorAll("[data-later]")) {
        fetch(place.dataset.later, {credentials: "same-origin"}).then(async (reply) => {
            if (!reply.ok || reply.redirected) return; // the link to its page stays
            place.innerHTML = await reply.text(); // escaped by the server's template
            localTimes(place);
        }).catch(() => {});
    }

    // ------------------------------------------------------------ unfold's search fields have no name of their own
    function nameSearchFields() {
        for (const select of document.querySelectorAll("select.admin-autocomplete")) {
            const shown = document.getElementById(`select2-${select.id}-container`);
            const label = select.labels[0]?.textContent.trim().replace(/\s*\*$/, "");
            if (shown && label) shown.setAttribute("aria-label", label);
        }
    }
    // They are made when jQuery finds the document ready, which may be after "load"; it keeps the order of who asked.
    window.addEventListener("load", () => {
        if (window.django?.jQuery) window.django.jQuery(nameSearchFields);
    });

    localTimes(document);
    outputTools(document);
    window.orchestratorLocalTimes = localTimes;
    window.orchestratorDrawer = openDrawer;
})();
