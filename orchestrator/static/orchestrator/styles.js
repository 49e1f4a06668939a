// Our Content-Security-Policy has no 'unsafe-inline': the browser drops a style attribute that a script sets as text.
// Alpine.js does that for the widths of the menu and the bars.  Set by way of the style object the same is allowed.
"use strict";
{
    const set = Element.prototype.setAttribute;
    Element.prototype.setAttribute = function (name, value) {
        if (String(name).toLowerCase() === "style" && this.style) {
            this.style.cssText = value;
        } else {
            set.call(this, name, value);
        }
    };
}
