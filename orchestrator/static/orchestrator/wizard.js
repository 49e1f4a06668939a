// The run wizard: counts while you choose, searches while you type, and buttons that can be pressed once.
"use strict";

(() => {
    const WAIT = 250; // milliseconds after the last key
    const form = document.getElementById("step");
    if (!form) return;

    form.addEventListener("submit", (event) => {
        const button = event.submitter;
        // after the submission was built, so that the button's name is part of it; the server refuses a second one anyway
        window.setTimeout(() => { if (button) button.disabled = true; }, 0);
    });
    window.addEventListener("pageshow", () => {
        for (const button of document.querySelectorAll("button[disabled]")) button.disabled = false; // by the back button
    });

    // ------------------------------------------------------------ what the chosen playbook takes
    for (const part of form.querySelectorAll("[data-inputs]")) {
        const choice = part.querySelector("select[name=playbook]");
        choice?.addEventListener("change", async () => {
            const name = choice.value;
            const query = new URLSearchParams({playbook: name, draft: part.dataset.draft});
            const place = part.querySelector("[data-place]");
            try {
                const reply = await fetch(`${part.dataset.inputs}?${query}`, {credentials: "same-origin"});
                if (!reply.ok || reply.redirected || name !== choice.value) return; // a later choice is under way
                place.innerHTML = await reply.text(); // escaped by the server's template
                part.querySelector("[data-status]").textContent = name && `Below is what ${name} takes.`;
            } catch {
                place.replaceChildren(); // the next step asks for what is missing
            }
        });
    }

    if (form.dataset.step !== "targets") return;
    const output = document.getElementById("count");
    let asked = 0;
    let counting;

    async function count() {
        const turn = ++asked;
        let text = "";
        try {
            const reply = await fetch(form.dataset.count, {method: "POST", body: new FormData(form), credentials: "same-origin"});
            if (reply.ok && !reply.redirected) text = (await reply.json()).text;
        } catch { /* the service is away: the next change asks again */ }
        if (turn === asked) output.textContent = text; // else a later question is under way
    }

    async function find(kind, text) {
        const query = new URLSearchParams({kind, q: text});
        const reply = await fetch(`${form.dataset.find}?${query}`, {credentials: "same-origin"});
        return reply.ok && !reply.redirected ? (await reply.json()).results : [];
    }

    function later(action) {
        let timer;
        return () => {
            window.clearTimeout(timer);
            timer = window.setTimeout(action, WAIT);
        };
    }

    // ------------------------------------------------------------ one row by its name, offered while you type
    for (const field of form.querySelectorAll("input[data-find]")) {
        const offers = Object.assign(document.createElement("datalist"), {id: field.getAttribute("list")});
        field.after(offers);
        const offer = async () => {
            const text = field.value.replace(/ \([^)]*\)$/, "");
            const rows = await find(field.dataset.find, text).catch(() => []);
            offers.replaceChildren(...rows.map((row) => Object.assign(document.createElement("option"), {value: row.text})));
        };
        field.addEventListener("input", later(offer));
        field.addEventListener("focus", offer, {once: true});
    }

    // ------------------------------------------------------------ search and pick
    for (const picker of form.querySelectorAll("[data-picker]")) {
        const name = picker.dataset.picker;
        const search = picker.querySelector("[data-search]");
        const found = picker.querySelector("[data-found]");
        const picked = picker.querySelector("[data-picked]");

        const entry = (row) => {
            const item = document.createElement("li");
            const label = document.createElement("label");
            const box = Object.assign(document.createElement("input"), {type: "checkbox", name, value: row.id});
            const where = Object.assign(document.createElement("span"), {className: "o-sub", textContent: row.organization});
            label.append(box, ` ${row.name} `, where);
            item.append(label);
            return item;
        };
        const look = async () => {
            const text = search.value.trim();
            if (!text) {
                found.replaceChildren();
                return;
            }
            const results = await find(picker.dataset.kind, text).catch(() => []);
            if (text !== search.value.trim()) return; // a later search is under way
            const there = new Set([...picked.querySelectorAll("input")].map((box) => box.value));
            const fresh = results.filter((row) => !there.has(row.id));
            found.replaceChildren(...fresh.map(entry));
            const more = results.length >= 20 ? " Type more to see others." : "";
            picker.querySelector("[data-status]").textContent = `${fresh.length} found.${more}`;
        };
        search.addEventListener("input", later(look));
        search.addEventListener("keydown", (event) => {
            if (event.key !== "Enter") return;
            event.preventDefault(); // not the next step
            look();
        });
        found.addEventListener("change", (event) => {
            picked.append(event.target.closest("li"));
            event.target.focus();
            form.querySelector(`[data-none="${name}"]`)?.remove();
        });
        picker.querySelector("[data-search-button]").hidden = true; // it searches by itself
    }

    form.addEventListener("change", count);
    form.addEventListener("input", (event) => {
        if (event.target.matches("[data-search]")) return;
        window.clearTimeout(counting);
        counting = window.setTimeout(count, WAIT);
    });
    count();
})();
