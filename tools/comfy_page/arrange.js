// Runs in ComfyUI's page: tidy columns by distance from the inputs, fixed seeds, a note, and who the nodes belong to.
([note, version]) => {
  const COLUMN = 400;
  const WIDTH = 340;
  const HEIGHT = { ParallelVAEDecode: 570, LoadImage: 390 }; // with what they show
  const GAP = { LoadImage: 210 }; // much taller in Nodes 2.0
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
  nodes.sort((one, other) => (one.type in GAP) - (other.type in GAP));
  for (const node of nodes) {
    for (const widget of node.widgets ?? []) {
      if (widget.name === "control_after_generate") widget.value = "fixed";
    }
    const ours = node.constructor.nodeData?.python_module?.startsWith("custom_nodes.");
    node.properties.cnr_id = ours ? "livetalk" : "comfy-core";
    if (ours) node.properties.ver = version;
    const column = deep(node);
    node.setSize([WIDTH, HEIGHT[node.type] ?? node.computeSize()[1]]);
    node.pos = [column * COLUMN, bottoms[column] ?? 0];
    bottoms[column] = node.pos[1] + node.size[1] + (GAP[node.type] ?? 80);
  }
  const text = window.LiteGraph.createNode("MarkdownNote");
  graph.add(text);
  text.widgets[0].value = note;
  text.pos = [COLUMN, -230];
  text.setSize([2 * COLUMN - 60, 150]);
  const saved = graph.serialize();
  saved.extra = { ds: { scale: 0.62, offset: [150, 350] } }; // below 0.6 texts are not drawn
  return JSON.stringify(saved); // as the page itself saves it: what is undefined is left out
}
