// node make_workflows.mjs URL WORKFLOWS: the page's own format of every workflow in WORKFLOWS/api, made by the page
// itself, and a picture of each graph. Run against a host with the pack; see docs/comfyui.md.
import { createRequire } from "node:module";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";

const require = createRequire(process.env.LIVETALK_PAGE + "/");
const { chromium } = require("playwright-core");
const [url, folder, version] = process.argv.slice(2);
const notes = JSON.parse(readFileSync(new URL("notes.json", import.meta.url), "utf8"));

const browser = await chromium.launch({
  executablePath: process.env.LIVETALK_CHROMIUM,
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"],
});
const page = await browser.newPage({ viewport: { width: 1500, height: 800 } });
page.setDefaultTimeout(180_000);
await page.route("**/*", (route) => {
  const asked = new URL(route.request().url());
  const here = asked.hostname === "127.0.0.1" || ["data:", "blob:"].includes(asked.protocol);
  return here ? route.continue() : route.abort();
});
await page.goto(url, { waitUntil: "domcontentloaded" });
await page.waitForFunction(() => window.LiteGraph?.registered_node_types?.ParallelVAEDecode && window.app?.canvas);

for (const file of readdirSync(`${folder}/api`).filter((name) => name.endsWith(".api.json"))) {
  const name = file.replace(".api.json", "");
  const api = JSON.parse(readFileSync(`${folder}/api/${file}`, "utf8"));
  await page.evaluate(([graph, title]) => window.app.loadApiJson(graph, title), [api, name]);
  await page.waitForTimeout(500);
  const saved = await page.evaluate(arrange, [notes[name], version]);
  writeFileSync(`${folder}/${name}.json`, JSON.stringify(saved, null, 1) + "\n");
  await page.waitForTimeout(1500);
  await page.screenshot({ path: `${folder}/${name}.graph.png`, clip: { x: 60, y: 60, width: 1380, height: 700 } });
  console.log(name, saved.nodes.length, "nodes");
}
await browser.close();

// In the page: tidy columns by distance from the inputs, fixed seeds, a note, and who the nodes belong to.
function arrange([note, version]) {
  const graph = window.app.graph;
  const depth = new Map();
  const deep = (node) => {
    if (!depth.has(node.id)) {
      const before = (node.inputs ?? []).map((input) => input.link && graph.getLink(input.link)).filter(Boolean);
      depth.set(node.id, 1 + Math.max(-1, ...before.map((link) => deep(graph.getNodeById(link.origin_id)))));
    }
    return depth.get(node.id);
  };
  const nodes = [...graph.nodes];
  nodes.forEach(deep);
  const bottoms = [];
  for (const node of nodes) {
    for (const widget of node.widgets ?? []) {
      if (widget.name === "control_after_generate") widget.value = "fixed";
    }
    const ours = node.constructor.nodeData?.python_module?.startsWith("custom_nodes.");
    node.properties.cnr_id = ours ? "livetalk" : "comfy-core";
    if (ours) node.properties.ver = version;
    const column = deep(node);
    const size = node.computeSize();
    const room = { ParallelVAEDecode: 160, LoadImage: 260 }[node.type] ?? 0; // for what they show
    node.setSize([340, size[1] + room]);
    node.pos = [column * 400, bottoms[column] ?? 0];
    bottoms[column] = node.pos[1] + node.size[1] + 70;
  }
  const text = window.LiteGraph.createNode("MarkdownNote");
  graph.add(text);
  text.widgets[0].value = note;
  text.pos = [0, -230];
  text.setSize([740, 150]);
  window.app.canvas.ds.scale = 0.62;
  window.app.canvas.ds.offset = [150, 450];
  window.app.canvas.setDirty(true, true);
  const saved = graph.serialize();
  saved.extra = { ds: { scale: 0.62, offset: [150, 450] } };
  return saved;
}
