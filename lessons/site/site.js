// Paper has no closed parts: open hints, solutions and answers before printing, and close them
// afterwards. The arrays of a state that did not change stay closed.
(function () {
  var opened = [];
  window.addEventListener("beforeprint", function () {
    opened = Array.from(document.querySelectorAll("details:not([open])")).filter(function (part) {
      return !part.closest(".cell_output");
    });
    opened.forEach(function (part) { part.open = true; });
  });
  window.addEventListener("afterprint", function () {
    opened.forEach(function (part) { part.open = false; });
    opened = [];
  });
})();
