// The page of a run: drawn anew when the stream of events says that something happened, or every two seconds where
// there is none, until the run has ended. Goes on when the service comes back.
"use strict";

(() => {
    const PERIOD = 2000; // milliseconds between two looks
    const SELDOM = 15000; // milliseconds, while the stream is open
    const AFTER_REFUSAL = 30000; // milliseconds until a stream is asked for again
    const page = document.getElementById("run");
    if (!page || !page.dataset.active) return;
    const rows = document.getElementById("rows");
    const live = (name) => page.querySelector(`[data-live="${name}"]`);
    const number = new Intl.NumberFormat();
    let status = live("badge").textContent;
    let seen = "";

    function draw(now) {
        const badge = live("badge");
        badge.className = `o-badge o-run-${now.status}`;
        badge.textContent = now.label;
        live("percent").textContent = now.percent;
        live("progress").value = now.percent;
        live("finished").textContent = number.format(now.finished_count);
        live("pace").textContent = now.pace && `, ${now.pace}`;
        let start = 0;
        for (const part of page.querySelectorAll(".o-bar rect[data-status]")) {
            const width = now.device_count ? 100 * now.counts[part.dataset.status] / now.device_count : 0;
            part.setAttribute("x", start.toFixed(3));
            part.setAttribute("width", width.toFixed(3));
            start += width;
        }
        for (const counter of page.querySelectorAll("[data-counter]")) {
            const count = now.counts[counter.dataset.counter];
            counter.hidden = !count;
            counter.querySelector("b").textContent = number.format(count);
        }
        if (now.label !== status) live("announce").textContent = `The run is now: ${now.label}`;
        status = now.label;
    }

    async function redraw(part, fragment) {
        const query = new URLSearchParams(window.location.search);
        query.set("fragment", fragment);
        const reply = await fetch(`${rows.dataset.source}?${query}`, {credentials: "same-origin"});
        if (!reply.ok || reply.redirected) return;
        const open = part.querySelector("details")?.open;
        const focused = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
        part.innerHTML = await reply.text(); // escaped by the server's template
        window.orchestratorLocalTimes(part);
        if (open) part.querySelector("details").open = true;
        if (focused) part.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
    }

    // All rows of a run are looked at for the cells and the timeline: the larger it is, the rarer.
    let whole = 0; // time of the last look
    let stale = false; // there was none after the last change
    const tasks = document.getElementById("tasks");
    let summed = Date.now(); // time of the last sum over the tasks, which are many for each device
    async function redrawAll() {
        await redraw(rows, "results");
        stale = Date.now() - whole < Number(page.dataset.devices) / 5; // milliseconds: 2 s for 10,000 devices
        if (stale) return;
        whole = Date.now();
        await redraw(document.getElementById("course"), "timeline");
        if (tasks && Date.now() - summed > Math.max(5000, 2 * Number(page.dataset.devices))) { // milliseconds
            await redraw(tasks, "tasks");
            summed = Date.now();
        }
        await window.orchestratorCells?.();
    }

    // ------------------------------------------------------------ when to look: told by a stream, else every two seconds
    let timer;
    let looking = false;
    let again = false; // told while it looked
    let told = false; // the stream is open: it says when there is something new

    async function look() {
        if (looking) {
            again = true;
            return;
        }
        window.clearTimeout(timer);
        [looking, again] = [true, false];
        let now;
        try {
            const reply = await fetch(page.dataset.progress, {credentials: "same-origin"});
            if (reply.redirected || reply.status === 403 || reply.status === 404) {
                window.location.reload(); // signed out, or the run is gone: the page itself says so
                return;
            }
            if (!reply.ok) throw new Error(String(reply.status));
            now = await reply.json();
            live("offline").hidden = true;
            draw(now);
            const state = JSON.stringify(now.counts);
            if (state !== seen || stale) await redrawAll();
            seen = state;
        } catch {
            live("offline").hidden = false;
        }
        looking = false;
        if (now && !now.active) window.location.reload(); // once: what can be done now is drawn by the server
        else timer = window.setTimeout(look, told && !again && !stale && now ? SELDOM : PERIOD);
    }

    // Goes on by itself after a break; where the service has no streams, or refuses one, the turns above remain.
    function listen() {
        const source = new EventSource(`${page.dataset.events}?rows=none`);
        source.addEventListener("open", () => { told = true; });
        source.addEventListener("error", () => {
            told = false;
            look();
            if (source.readyState === EventSource.CLOSED) window.setTimeout(listen, AFTER_REFUSAL);
        });
        for (const name of ["changes", "end"]) source.addEventListener(name, look);
    }

    if (page.dataset.events && window.EventSource) listen();
    timer = window.setTimeout(look, PERIOD);
})();
