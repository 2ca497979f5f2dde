// Errors of the page end up in the data-errors attribute of <html>, where a test can read them.
(function () {
  "use strict";
  var root = document.documentElement;
  function note(text) {
    root.setAttribute("data-errors", (root.getAttribute("data-errors") || "") + text + "\n");
  }
  window.addEventListener("error", function (event) { note(String(event.message)); });
  window.addEventListener("unhandledrejection", function (event) { note(String(event.reason)); });
  document.addEventListener("securitypolicyviolation", function (event) {
    note("blocked " + event.violatedDirective + " " + event.blockedURI);
  });
  var original = console.error;
  console.error = function () {
    note(Array.prototype.join.call(arguments, " "));
    original.apply(console, arguments);
  };
})();
