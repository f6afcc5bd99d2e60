// Brings what a run tells over the websocket to the player on its node. See nodes/sink_view.py for the other end.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { Player } from "./player.js";
import { loadTexts } from "./texts.js";

const SINK = "ParallelVAEDecode";
const players = new WeakMap(); // node -> Player

// Nodes inside of subgraphs have ids such as "5:2".
function playerOf(id) {
  let graph = app.rootGraph ?? app.graph;
  let node = null;
  for (const part of String(id).split(":")) {
    node = graph?.getNodeById(part) ?? graph?.getNodeById(Number(part));
    graph = node?.subgraph;
  }
  return node && players.get(node);
}

function listen() {
  api.addEventListener("livetalk.phase", ({ detail }) => playerOf(detail.node)?.phase(detail.phase, detail.text));
  api.addEventListener("livetalk.stream", ({ detail }) => {
    playerOf(detail.node)?.shape(detail.width, detail.height);
    playerOf(detail.node)?.watch(detail.stream);
  });
  api.addEventListener("livetalk.chunk", ({ detail }) => playerOf(detail.node)?.chunk(detail));
  api.addEventListener("executed", ({ detail }) => {
    const file = detail.output?.livetalk_video?.[0];
    if (file) playerOf(detail.display_node ?? detail.node)?.finish(file);
  });
  api.addEventListener("execution_interrupted", ({ detail }) => playerOf(detail.node_id)?.halt("stopped"));
  api.addEventListener("execution_error", ({ detail }) => playerOf(detail.node_id)?.halt("failed"));
}

app.registerExtension({
  name: "livetalk.live",
  async init() {
    await loadTexts();
    listen();
  },
  nodeCreated(node) {
    if (node.comfyClass !== SINK) return;
    const player = new Player();
    players.set(node, player);
    const widget = node.addDOMWidget("live", "livetalk_player", player.root, {
      serialize: false,
      hideOnZoom: false,
      getMinHeight: () => 220,
    });
    widget.serialize = false;
    const removed = node.onRemoved;
    node.onRemoved = function (...rest) {
      player.close();
      return removed?.apply(this, rest);
    };
  },
});
