// On every page: times in the reader's zone, and results in a drawer where a page has one.
"use strict";

document.documentElement.classList.add("o-js");

const exact = new Intl.DateTimeFormat(undefined, {dateStyle: "full", timeStyle: "long"});
const day = new Intl.DateTimeFormat(undefined, {dateStyle: "medium", timeStyle: "short"});
const clock = new Intl.DateTimeFormat(undefined, {timeStyle: "medium"});

function localTimes(root) {
    for (const element of root.querySelectorAll("time[datetime]")) {
        const moment = new Date(element.dateTime);
        if (Number.isNaN(moment.getTime())) continue;
        element.textContent = ("clock" in element.dataset ? clock : day).format(moment);
        element.title = exact.format(moment);
    }
}

async function openDrawer(drawer, link) {
    const body = drawer.querySelector("[data-body]");
    let text;
    try {
        const reply = await fetch(`${link.href}?fragment=1`, {credentials: "same-origin"});
        if (!reply.ok) throw new Error(String(reply.status));
        text = await reply.text();
    } catch {
        window.location.href = link.href; // its own page says what is wrong
        return;
    }
    body.innerHTML = text; // escaped by the server's template
    localTimes(body);
    drawer.showModal();
    drawer.addEventListener("close", () => {
        // the table may have been drawn anew meanwhile
        document.querySelector(`a[data-drawer][href="${CSS.escape(link.getAttribute("href"))}"]`)?.focus();
    }, {once: true});
}

document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-drawer]");
    const drawer = document.getElementById("drawer");
    if (!link || !drawer || event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
    event.preventDefault();
    openDrawer(drawer, link);
});

localTimes(document);
window.orchestratorLocalTimes = localTimes;
