// Draws every plot from the JSON block, keeps it printable, and lets the legends switch series.
(function () {
  "use strict";
  var plots = JSON.parse(document.getElementById("plots").textContent);
  var root = document.documentElement;
  var touch = window.matchMedia("(pointer: coarse)").matches;
  var config = {
    responsive: true,
    displaylogo: false,
    modeBarButtons: [["zoom2d", "resetScale2d", "toImage"]],
    displayModeBar: touch ? false : "hover"
  };

  // A viewBox of the drawn size changes nothing on the screen and lets paper scale the drawing.
  function makeScalable(plot) {
    var box = plot.querySelector(".svg-container");
    var width = plot._fullLayout.width, height = plot._fullLayout.height;
    box.style.setProperty("--drawn-width", width);
    box.style.setProperty("--drawn-height", height);
    plot.querySelectorAll(".main-svg").forEach(function (drawing) {
      drawing.setAttribute("viewBox", "0 0 " + width + " " + height);
    });
  }

  function draw(key) {
    var plot = document.getElementById("plot-" + key);
    var layout = plots[key].layout;
    // A finger that scrolls the page must not draw a zoom box.
    if (touch) { layout.dragmode = false; }
    return Plotly.newPlot(plot, plots[key].data, layout, config).then(function () {
      makeScalable(plot);
      plot.on("plotly_afterplot", function () { makeScalable(plot); });
    });
  }

  function showGroup(button) {
    var shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    var figure = document.getElementById(button.dataset.figure);
    figure.querySelectorAll(".plot").forEach(function (plot) {
      var members = [];
      plot.data.forEach(function (trace, index) {
        if (trace.legendgroup === button.dataset.group) { members.push(index); }
      });
      if (members.length) { Plotly.restyle(plot, { visible: shown }, members); }
    });
  }

  document.querySelectorAll(".legend button").forEach(function (button) {
    button.addEventListener("click", function () { showGroup(button); });
  });
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details:not([open]):not(.numbers)").forEach(function (block) {
      block.open = true;
      block.dataset.closeAfterPrint = "";
    });
  });
  window.addEventListener("afterprint", function () {
    document.querySelectorAll("[data-close-after-print]").forEach(function (block) {
      block.open = false;
      delete block.dataset.closeAfterPrint;
    });
  });
  Promise.all(Object.keys(plots).map(draw)).then(function () {
    root.setAttribute("data-drawn", String(Object.keys(plots).length));
  });
})();
