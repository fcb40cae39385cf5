const main = document.getElementById("main");

function showMetric(metric) {
  main.dataset.metric = metric;
  for (const radio of document.querySelectorAll(".switch input")) radio.checked = radio.value === metric;
  markBest(metric);
  const sorted = document.querySelector("#scores th[data-metric-column][aria-sort]");
  if (sorted) sortRows(document.getElementById("scores"), sorted.cellIndex, sorted.getAttribute("aria-sort"), true);
  showGroup();
}

function markBest(metric) {
  for (const row of document.querySelectorAll("tr:has(td.shaded)")) {
    const cells = [...row.querySelectorAll("td.shaded")];
    const values = cells.map((cell) => Number(cell.dataset[metric] || NaN));
    const best = Math.max(...values.filter(Number.isFinite));
    cells.forEach((cell, i) => cell.classList.toggle("best", cells.length > 1 && values[i] === best));
  }
}

function range(low, high, sign) {
  return low === null || high === null ? "" : ` [${percent(low, sign)}, ${percent(high, sign)}]`;
}

function number(value, show) {
  return { show: [show], value };
}

function estimate([value, low, high], sign) {
  return { show: [percent(value, sign), element("span", { class: "range" }, range(low, high, sign))], value };
}

function showGroup() {
  const select = document.getElementById("group");
  if (!select) return;
  const group = data.groups[Number(select.value)];
  const metric = main.dataset.metric;
  const name = metric === "accuracy" ? "Accuracy" : "Macro-F1";
  const columns = [{ name: "Recipe", first: "ascending" }, { name, number: true }, { name: `Interval of ${name}`, plot: ["0", "50", "100"] }];
  const rows = data.recipes.filter((recipe) => group[metric][recipe]).map((recipe) => {
    const scores = group[metric][recipe];
    return [{ show: [element("bdi", {}, recipe)], value: recipe }, estimate(scores), { show: [interval(scores, 0, 1)] }];
  });
  fillTable(document.getElementById("group-table"), `${group.title}: unweighted mean over ${group.size} languages, in percent`, columns, rows);
}

function showPair() {
  const pair = data.pairs[Number(document.getElementById("pair").value)];
  document.getElementById("pair-statement").textContent = pair.statement;
  const width = Math.round(pair.limit * 100);
  const plot = { name: "Interval of the difference", plot: [`−${width}`, "0", `+${width}`] };
  const difference = { name: "Difference", number: true };
  const caption = `${pair.first} minus ${pair.second}, accuracy in percentage points; right of 0 ${pair.first} is better`;
  const draw = (values, hollow) => ({ show: [interval(values, -pair.limit, pair.limit, hollow)] });
  fillTable(document.getElementById("pair-groups"), caption,
    [{ name: "Languages", first: "ascending" }, difference, plot, { name: "p", number: true, first: "ascending" }],
    pair.groups.map(([title, value, low, high, p]) =>
      [{ show: [title], value: title }, estimate([value, low, high], true), draw([value, low, high], false), number(p, pValue(p))]));
  const tests = ["p", "p, corrected", "p, sign test"].map((name) => ({ name, number: true, first: "ascending" }));
  fillTable(document.getElementById("pair-languages"), caption,
    [{ name: "Language", first: "ascending" }, difference, plot, ...tests, { name: "Effect size", number: true }],
    pair.languages.map(([index, value, low, high, p, adjusted, sign, effect]) => {
      const language = data.languages[index];
      const name = [`${language.name} `, element("span", { class: "code" }, language.code)];
      const significant = adjusted !== null && adjusted < 0.05;
      return [{ show: name, value: language.name }, estimate([value, low, high], true), draw([value, low, high], !significant),
        number(p, pValue(p)), number(adjusted, pValue(adjusted)), number(sign, pValue(sign)), number(effect, effect === null ? "–" : effect.toFixed(2))];
    }));
}

for (const radio of document.querySelectorAll(".switch input")) radio.addEventListener("change", () => showMetric(radio.value));
if (data.groups.length) {
  options(document.getElementById("group"), data.groups.map((group, i) => [i, `${group.title} (${group.size})`]));
  document.getElementById("group").addEventListener("change", showGroup);
}
if (data.pairs.length) {
  options(document.getElementById("pair"), data.pairs.map((pair, i) => [i, `${pair.first} − ${pair.second}`]));
  document.getElementById("pair").addEventListener("change", showPair);
  showPair();
}
showMetric("accuracy");
