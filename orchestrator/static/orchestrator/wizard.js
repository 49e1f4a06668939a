// The run wizard: counts while you choose, searches while you type, and a button that can be pressed once.
"use strict";

(() => {
    const WAIT = 250; // milliseconds after the last key
    const form = document.querySelector("form.o-form");
    if (!form) return;

    form.addEventListener("submit", (event) => {
        const button = event.submitter;
        // after the submission was built, so that the button's name is part of it; the server refuses a second one anyway
        window.setTimeout(() => { if (button) button.disabled = true; }, 0);
    });
    window.addEventListener("pageshow", () => {
        for (const button of form.querySelectorAll("button[disabled]")) button.disabled = false; // by the back button
    });

    if (form.id !== "targets") return;
    const output = document.getElementById("count");
    const search = document.getElementById("search");
    const found = document.getElementById("found");
    const picked = document.getElementById("picked");
    let timer;
    let asked = 0;

    async function count() {
        const turn = ++asked;
        const reply = await fetch(form.dataset.count, {method: "POST", body: new FormData(form), credentials: "same-origin"});
        if (!reply.ok || turn !== asked) return; // a later question is under way
        output.textContent = (await reply.json()).text;
    }

    function entry(device) {
        const item = document.createElement("li");
        const label = document.createElement("label");
        const box = Object.assign(document.createElement("input"), {type: "checkbox", name: "devices", value: device.id});
        const where = Object.assign(document.createElement("span"), {className: "o-sub", textContent: device.organization});
        label.append(box, ` ${device.name} `, where);
        item.append(label);
        return item;
    }

    async function find() {
        const text = search.value.trim();
        if (!text) {
            found.replaceChildren();
            return;
        }
        const reply = await fetch(`${form.dataset.devices}?${new URLSearchParams({q: text})}`, {credentials: "same-origin"});
        if (!reply.ok || text !== search.value.trim()) return;
        const results = (await reply.json()).results;
        const there = new Set([...picked.querySelectorAll("input")].map((box) => box.value));
        const fresh = results.filter((device) => !there.has(device.id));
        found.replaceChildren(...fresh.map(entry));
        document.getElementById("found-status").textContent = `${fresh.length} devices found`;
    }

    form.addEventListener("change", (event) => {
        if (event.target.name === "devices" && found.contains(event.target)) {
            picked.append(event.target.closest("li"));
            event.target.focus();
            document.getElementById("none-picked")?.remove();
        }
        count();
    });
    search.addEventListener("input", () => {
        window.clearTimeout(timer);
        timer = window.setTimeout(find, WAIT);
    });
    search.addEventListener("keydown", (event) => {
        if (event.key !== "Enter") return;
        event.preventDefault(); // not the next step
        find();
    });
    document.getElementById("search-button").hidden = true; // it searches by itself
    count();
})();
