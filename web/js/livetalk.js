// Brings what a run tells over the websocket to the player on its node. See nodes/sink_view.py for the other end.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { Player } from "./player.js";
import { loadTexts } from "./texts.js";

const SINK = "ParallelVAEDecode";
const players = new WeakMap(); // node -> Player
const workflows = new Map(); // prompt -> the workflow that it was queued from, as far as runs have told

const rootGraph = () => app.rootGraph ?? app.graph;

// Nodes inside of subgraphs have ids such as "5:2".
function nodeOf(id) {
  let graph = rootGraph();
  let node = null;
  for (const part of String(id).split(":")) {
    node = graph?.getNodeById(part) ?? graph?.getNodeById(Number(part));
    graph = node?.subgraph;
  }
  return node;
}

// The page itself names those by the subgraph's definition: "5f0c…:2".
function placedNode(id) {
  const [subgraph, local] = String(id).split(":");
  const graph = rootGraph()?.subgraphs?.get(subgraph);
  return graph ? graph.getNodeById(local) ?? graph.getNodeById(Number(local)) : nodeOf(id);
}

// The player that an event is for; none where another workflow is open, whose nodes may have the same ids.
function playerOf(id, prompt) {
  const origin = workflows.get(prompt);
  const node = origin && origin !== rootGraph().id ? null : nodeOf(id);
  return node && players.get(node);
}

// Events of our own begin with where they come from.
function hear(name, act) {
  api.addEventListener(`livetalk.${name}`, ({ detail }) => {
    workflows.set(detail.prompt_id, detail.workflow);
    const player = playerOf(detail.node, detail.prompt_id);
    if (player) act(player, detail);
  });
}

function listen() {
  hear("phase", (player, { phase, text }) => player.phase(phase, text));
  hear("stream", (player, { stream, width, height }) => {
    player.shape(width, height);
    player.watch(stream);
  });
  hear("chunk", (player, detail) => player.chunk(detail));
  api.addEventListener("executed", ({ detail }) => {
    const file = detail.output?.livetalk_video?.[0];
    if (file) playerOf(detail.display_node ?? detail.node, detail.prompt_id)?.finish(file);
  });
  for (const [name, why] of [["execution_interrupted", "stopped"], ["execution_error", "failed"]])
    api.addEventListener(name, ({ detail }) => {
      // Of runs without a sink nothing has been told: in another workflow any node may have the same id.
      if (detail.node_type === SINK) playerOf(detail.node_id, detail.prompt_id)?.halt(why);
    });
}

// What a finished run has left on the nodes: the page keeps it for the workflows that it has open.
function restore() {
  for (const [id, output] of Object.entries(app.nodeOutputs ?? {})) {
    const file = output?.livetalk_video?.[0];
    if (file) players.get(placedNode(id))?.restore(file);
  }
}

app.registerExtension({
  name: "livetalk.live",
  async init() {
    await loadTexts();
    listen();
  },
  beforeConfigureGraph() {
    Player.closeAll();
  },
  afterConfigureGraph() {
    setTimeout(restore); // the page brings it back right after this
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
