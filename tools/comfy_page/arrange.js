// Runs in ComfyUI's page: tidy columns by distance from the inputs, fixed seeds, a note, and who the nodes belong to.
([note, version]) => {
  const COLUMN = 400;
  const WIDTH = 340;
  const HEIGHT = { ParallelVAEDecode: 570, LoadImage: 390, CLIPLoader: 106 }; // with what they show
  const GAP = { LoadImage: 210, SaveVideo: 420 }; // much taller in Nodes 2.0; with the video below it
  const SINK = "ParallelVAEDecode";
  const graph = window.app.graph;
  const depth = new Map();
  const deep = (node) => {
    if (!depth.has(node.id)) {
      const links = (node.inputs ?? []).map((input) => input.link && graph.getLink(input.link)).filter(Boolean);
      const before = links.map((link) => deep(graph.getNodeById(link.origin_id)));
      const step = node.type === "RetrospectiveCorrect" ? 0 : 1; // below what it corrects
      depth.set(node.id, before.length ? step + Math.max(...before) : 0);
    }
    return depth.get(node.id);
  };
  const nodes = [...graph.nodes];
  const sinks = nodes.filter((node) => node.type === SINK);
  const columnOf = (node) => {
    // Several sinks stand side by side; what follows them, behind the last.
    const beside = node.type === SINK ? sinks.indexOf(node) : deep(node) > deep(sinks[0]) ? sinks.length - 1 : 0;
    return deep(node) + beside;
  };
  const bottoms = [];
  nodes.sort((one, other) => (one.type === "LoadImage") - (other.type === "LoadImage"));
  for (const node of nodes) {
    for (const widget of node.widgets ?? []) {
      if (widget.name === "control_after_generate") widget.value = "fixed";
    }
    const ours = node.constructor.nodeData?.python_module?.startsWith("custom_nodes.");
    node.properties.cnr_id = ours ? "livetalk" : "comfy-core";
    if (ours) node.properties.ver = version;
    const column = columnOf(node);
    node.setSize([WIDTH, HEIGHT[node.type] ?? node.computeSize()[1]]);
    node.pos = [column * COLUMN, bottoms[column] ?? 0];
    bottoms[column] = node.pos[1] + node.size[1] + (GAP[node.type] ?? 80);
  }
  const text = window.LiteGraph.createNode("MarkdownNote");
  graph.add(text);
  text.widgets[0].value = note;
  text.pos = [COLUMN, -195]; // Nodes 2.0 move it up, towards the page's own bars
  text.setSize([900, 130]);
  const saved = graph.serialize();
  saved.extra = { ds: { scale: 0.62, offset: [150, 375] } }; // below 0.6 texts are not drawn
  return JSON.stringify(saved); // as the page itself saves it: what is undefined is left out
}
