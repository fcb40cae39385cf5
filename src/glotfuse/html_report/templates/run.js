const INVALID = "no label";

function confusionTotal(matrices) {
  return matrices.reduce((sum, matrix) => sum.map((row, i) => row.map((count, j) => count + matrix[i][j])));
}

function showConfusion() {
  const chosen = document.getElementById("confusion-language").value;
  const language = data.languages[Number(chosen)];
  const matrix = chosen === "all" ? confusionTotal(data.languages.map((each) => each.confusion)) : language.confusion;
  const withInvalid = matrix.some((row) => row[row.length - 1] > 0);
  const columns = withInvalid ? [...data.labels, INVALID] : data.labels;
  const corner = element("td", {}, "right ↓ answer →");
  const head = element("tr", {}, corner, ...columns.map((label) => element("th", { scope: "col" }, element("bdi", {}, label))));
  const rows = data.labels.map((label, i) => {
    const total = matrix[i].reduce((sum, count) => sum + count, 0);
    const cells = columns.map((_, j) => {
      const share = total ? (matrix[i][j] / total) * 55 : 0;
      return element("td", { class: i === j ? "right" : "", style: `--share:${share.toFixed(0)}%` }, String(matrix[i][j]));
    });
    return element("tr", {}, element("th", { scope: "row" }, element("bdi", {}, label)), ...cells);
  });
  const name = chosen === "all" ? `all ${data.languages.length} languages together` : language.name;
  const caption = element("caption", {}, element("span", {}, `Number of examples, ${name}`));
  document.getElementById("confusion-table").replaceChildren(caption, element("thead", {}, head), element("tbody", {}, ...rows));
}

function mistakeItem(mistake, language) {
  const several = mistake.texts.length > 1;
  const texts = mistake.texts.flatMap(([name, text]) => [
    several ? element("p", { class: "field" }, name) : null,
    element("p", { class: "text", dir: "auto", lang: language.tag }, text),
  ]);
  const fact = (title, value) => element("span", {}, `${title} `, element("b", {}, element("bdi", {}, value)));
  const chance = (value) => (value === null ? "" : ` (${percent(value)}%)`);
  const answer = mistake.predicted === null ? INVALID : mistake.predicted;
  const labels = element("p", { class: "labels" },
    fact("right:", mistake.gold + chance(mistake.gold_probability)),
    fact("answer:", answer + chance(mistake.probability)),
    mistake.row === null ? null : element("span", { class: "code" }, `row ${mistake.row}`),
    mistake.truncated ? element("span", { class: "code" }, "the model read a part of the text only") : null,
    mistake.num_left_out ? element("span", { class: "code" }, `${mistake.num_left_out} characters not shown`) : null);
  return element("li", {}, ...texts, labels);
}

function showMistakes() {
  const language = data.languages[Number(document.getElementById("mistakes-language").value)];
  const gold = document.getElementById("mistakes-gold").value;
  const answer = document.getElementById("mistakes-answer").value;
  const fits = (wanted, label) => wanted === "any" || (label === null ? wanted === "invalid" : wanted === `label:${label}`);
  const shown = language.shown.filter((mistake) => fits(gold, mistake.gold) && fits(answer, mistake.predicted));
  const left = language.num_wrong - language.shown.length;
  const parts = [`${shown.length} of ${language.num_wrong} mistakes in ${language.name} are shown.`];
  if (left) parts.push(`${left} are not in this page.`);
  if (language.num_unreadable) parts.push(`${language.num_unreadable} saved predictions could not be read.`);
  const count = document.getElementById("mistakes-count");
  count.textContent = language.recorded ? parts.join(" ") : `Predictions in ${language.name} are not recorded.`;
  document.getElementById("mistakes-list").replaceChildren(...shown.map((mistake) => mistakeItem(mistake, language)));
}

if (data.languages.length) {
  const names = data.languages.map((language, i) => [i, `${language.name} (${language.code})`]);
  const labels = data.labels.map((label) => [`label:${label}`, label]);
  options(document.getElementById("confusion-language"), [["all", "all together"], ...names]);
  options(document.getElementById("mistakes-language"), names);
  options(document.getElementById("mistakes-gold"), [["any", "any"], ...labels]);
  options(document.getElementById("mistakes-answer"), [["any", "any"], ...labels, ["invalid", INVALID]]);
  const first = data.languages.findIndex((language) => language.low_resource && language.shown.length);
  document.getElementById("mistakes-language").value = String(Math.max(first, 0));
  document.getElementById("confusion-language").addEventListener("change", showConfusion);
  for (const id of ["mistakes-language", "mistakes-gold", "mistakes-answer"]) document.getElementById(id).addEventListener("change", showMistakes);
  showConfusion();
  showMistakes();
}
