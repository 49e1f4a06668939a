// A page of the API: sends what its form says, as any other client would, and shows the answer.
"use strict";

(() => {
    const form = document.getElementById("request");
    if (!form) return;
    const answer = document.getElementById("answer");

    const show = (title, text, address) => {
        const heading = Object.assign(document.createElement("h2"), {textContent: title});
        answer.replaceChildren(heading);
        if (address) answer.append(Object.assign(document.createElement("a"), {href: address, textContent: address}));
        answer.append(Object.assign(document.createElement("pre"), {textContent: text, tabIndex: 0}));
        answer.scrollIntoView({block: "nearest"});
    };

    const readable = (text) => {
        try {
            return JSON.stringify(JSON.parse(text), null, 4);
        } catch {
            return text;
        }
    };

    form.addEventListener("submit", async (event) => {
        event.preventDefault();
        const method = form.elements.method.value;
        if (method === "DELETE" && !window.confirm("Delete this?")) return;
        const button = form.querySelector("button");
        button.disabled = true;
        try {
            const reply = await fetch(form.action, {
                method,
                credentials: "same-origin",
                headers: {
                    "Accept": "application/json",
                    "Content-Type": "application/json",
                    "X-CSRFToken": form.elements.csrfmiddlewaretoken.value,
                },
                body: method === "DELETE" ? undefined : form.elements.body.value,
            });
            show(`${method}: ${reply.status} ${reply.statusText}`, readable(await reply.text()), reply.headers.get("Location"));
        } catch {
            show(`${method}: no answer`, "The service did not answer.");
        } finally {
            button.disabled = false;
        }
    });
})();
