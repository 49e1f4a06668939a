// A cell for each device of a run, coloured by its status. What it shows is also in the table below it, for keyboards
// and for those who do not see it.
"use strict";

(() => {
    const LARGEST = 18; // pixels, of a cell with its gap
    const SMALLEST = 3;
    const HEIGHT = 260; // pixels that many cells take together where the window is wide
    const WAIT = 120; // milliseconds that the pointer rests before the server is asked for a name
    const PER_PAGE = 50; // rows of the table
    const page = document.getElementById("run");
    const area = document.getElementById("cells");
    if (!page || !area) return;
    const canvas = area.querySelector("canvas");
    const tip = area.querySelector("[data-cells=tip]");
    let grid = {statuses: [], cells: "", devices_in_a_cell: 1};
    let size = LARGEST;
    let across = 1;
    let over = -1;
    let timer;

    function draw() {
        const number = grid.cells.length;
        const width = area.clientWidth;
        if (!number || !width) return;
        size = Math.max(SMALLEST, Math.min(LARGEST, Math.floor(Math.sqrt(width * HEIGHT / number))));
        across = Math.max(1, Math.floor(width / size));
        const height = Math.ceil(number / across) * size;
        const scale = window.devicePixelRatio || 1;
        canvas.width = Math.round(across * size * scale);
        canvas.height = Math.round(height * scale);
        canvas.style.width = `${across * size}px`;
        canvas.style.height = `${height}px`;
        const context = canvas.getContext("2d");
        context.scale(scale, scale);
        const style = getComputedStyle(document.documentElement);
        const side = size - (size > 5 ? 2 : 1);
        const shown = page.dataset.shown;
        grid.statuses.forEach((status, place) => {
            const letter = String(place);
            context.fillStyle = style.getPropertyValue(`--o-${status}`);
            const faint = status === "success" ? 0.5 : 1; // what did not succeed stands out
            context.globalAlpha = shown && shown !== status ? 0.15 : faint;
            for (let at = grid.cells.indexOf(letter); at >= 0; at = grid.cells.indexOf(letter, at + 1)) {
                context.fillRect((at % across) * size, Math.floor(at / across) * size, side, side);
            }
        });
        if (over < 0) return;
        context.globalAlpha = 1;
        context.lineWidth = 2;
        context.strokeStyle = style.getPropertyValue("--o-focus");
        context.strokeRect((over % across) * size, Math.floor(over / across) * size, side, side);
    }

    async function refresh() {
        const reply = await fetch(page.dataset.grid, {credentials: "same-origin"});
        if (!reply.ok || reply.redirected) return;
        grid = await reply.json();
        area.hidden = !grid.cells.length;
        if (grid.devices_in_a_cell > 1) {
            area.querySelector("[data-cells=hint]").textContent =
                `Each cell is ${grid.devices_in_a_cell} devices, by name, and has the colour of the worst of them.`;
        }
        draw();
    }

    function at(event) {
        const box = canvas.getBoundingClientRect();
        const column = Math.floor((event.clientX - box.left) / size);
        const cell = Math.floor((event.clientY - box.top) / size) * across + column;
        return column < across && cell < grid.cells.length ? cell : -1;
    }

    async function ask(cell) {
        const reply = await fetch(`${page.dataset.grid}?cell=${cell}`, {credentials: "same-origin"});
        return reply.ok ? reply.json() : {};
    }

    canvas.addEventListener("pointermove", (event) => {
        const cell = at(event);
        if (cell === over) return;
        over = cell;
        draw();
        window.clearTimeout(timer);
        tip.textContent = "";
        if (cell < 0) return;
        timer = window.setTimeout(async () => {
            const found = await ask(cell).catch(() => ({}));
            if (cell !== over || !found.name) return;
            const reason = found.reason ? ` (${found.reason})` : "";
            tip.textContent = found.count > 1
                ? `${found.name}: ${found.label}, the worst of ${found.count} up to ${found.last}`
                : `${found.name}: ${found.label}${reason}`;
        }, WAIT);
    });
    canvas.addEventListener("pointerleave", () => {
        over = -1;
        window.clearTimeout(timer);
        tip.textContent = "";
        draw();
    });
    canvas.addEventListener("click", async (event) => {
        const cell = at(event);
        if (cell < 0) return;
        const found = await ask(cell).catch(() => ({}));
        if (found.count > 1) {
            const first = cell * grid.devices_in_a_cell;
            window.location.assign(`?page=${Math.floor(first / PER_PAGE) + 1}#results`);
        } else if (found.address) window.orchestratorDrawer(found.address);
    });
    new ResizeObserver(draw).observe(page);
    new MutationObserver(draw).observe(document.documentElement, {attributeFilter: ["class"]});
    window.orchestratorCells = refresh;
    refresh().catch(() => {}); // the next turn of the page tries again
})();
