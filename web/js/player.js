// The player on a node: the live stream while it is made, the finished file afterwards, and a line that says how it goes.
import { api } from "../../../scripts/api.js";
import { feed } from "./feed.js";
import { say } from "./texts.js";

const open = new Set(); // all players of the page
let wantsSound = false; // what the user has chosen last; a page that speaks unasked is a nuisance

function element(kind, name, parent) {
  const made = document.createElement(kind);
  made.className = `livetalk-${name}`;
  parent?.append(made);
  return made;
}

const address = (file) => api.apiURL(`/view?${new URLSearchParams(file)}`);

export class Player {
  constructor() {
    this.root = element("div", "player");
    // Within the node: what stands in the head of the page belongs to all packs.
    const style = element("link", "style", this.root);
    style.rel = "stylesheet";
    style.href = new URL("./player.css", import.meta.url).href;
    this.stage = element("div", "stage", this.root);
    this.video = element("video", "video", this.stage);
    this.hint = element("div", "hint", this.stage);
    this.soundButton = element("button", "sound", this.stage);
    this.status = element("div", "status", this.root);
    this.video.playsInline = true;
    this.video.preload = "metadata";
    this.video.addEventListener("volumechange", () => this.followControls());
    this.video.addEventListener("ended", () => this.file && this.showFile(0));
    this.soundButton.type = "button";
    this.soundButton.addEventListener("click", () => this.choose(true));
    this.setSound(false);
    this.setState("idle");
    this.hint.textContent = say("player.idle");
    this.soundButton.textContent = say("player.sound");
    open.add(this);
  }

  // What the run is doing, by name; the server's words where there is no translation.
  phase(name, text) {
    this.file = null;
    this.status.textContent = say(`phase.${name}`, {}, text);
  }

  chunk({ stream, first_pts, duration, frames, seconds }) {
    this.made = first_pts + duration;
    const values = { seconds: this.made.toFixed(1), speed: Math.round(frames / seconds) };
    this.status.textContent = say("player.chunk", values);
    if (stream) this.watch(stream); // unless that goes on already: the page may have been loaded again
  }

  // How wide and high the pictures are going to be.
  shape(width, height) {
    this.stage.style.aspectRatio = `${width} / ${height}`;
  }

  // Play a running stream; a newer one takes its place as soon as it has something to show.
  async watch(name) {
    if (name === this.stream) return;
    this.abort?.abort();
    const abort = (this.abort = new AbortController());
    this.stream = name;
    try {
      const answer = await api.fetchApi(`/livetalk/live/${name}`, { signal: abort.signal });
      const type = answer.headers.get("Content-Type");
      // A proxy that gave up, or too many viewers: the next chunk tries again; after the last one nobody has to.
      if (!answer.ok) {
        if (this.stream === name) this.stream = null;
        return;
      }
      // Else the finished file will be shown; who does not read gets still pictures until then.
      if (!window.MediaSource?.isTypeSupported(type)) return abort.abort();
      this.setState("live");
      await feed(answer.body, type, this.video, abort.signal, () => this.begin());
    } catch (error) {
      if (abort.signal.aborted) return;
      console.warn("LiveTalk: the live picture ended:", error);
      this.status.textContent = say("player.lost");
    }
    if (this.stream === name) this.stream = null;
  }

  // There is something to see. Without a click into the page, browsers refuse sound.
  async begin() {
    if (!open.has(this)) return; // its node went while this came
    this.setSound(wantsSound);
    try {
      await this.video.play();
    } catch {
      this.setSound(false);
      await this.video.play().catch(() => {});
    }
  }

  // The run was stopped or has failed: what is left to play would only be confusing.
  halt(why) {
    this.abort?.abort();
    this.stream = null;
    this.video.pause();
    this.status.textContent = say(`player.${why}`);
  }

  // The whole video is there; who watches sees it out first.
  finish(file) {
    this.file = address(file);
    this.status.textContent = say(this.made ? "player.done" : "player.cached", { seconds: this.made?.toFixed(1) });
    this.made = 0;
    const watching = this.root.dataset.state === "live" && !this.video.ended;
    if (!watching) this.showFile(0);
    else if (this.video.paused) this.showFile(this.video.currentTime);
  }

  // The whole video is there from before this node was.
  restore(file) {
    if (this.root.dataset.state !== "idle") return;
    this.file = address(file);
    this.showFile(0);
  }

  showFile(seconds) {
    if (this.video.src !== new URL(this.file, location.href).href) {
      this.release();
      this.video.src = this.file;
    }
    this.video.currentTime = seconds;
    this.setState("file");
  }

  setState(state) {
    this.root.dataset.state = state;
    this.video.controls = state !== "idle";
  }

  setSound(on) {
    this.muted = this.video.muted = !on;
    this.soundButton.hidden = on;
    if (on) for (const other of open) if (other !== this) other.setSound(false);
  }

  choose(on) {
    wantsSound = on;
    this.setSound(on);
  }

  // The video's own controls change the sound as well.
  followControls() {
    if (this.video.muted !== this.muted) this.choose(!this.video.muted);
  }

  release() {
    this.abort?.abort();
    this.stream = null;
    if (this.video.src.startsWith("blob:")) URL.revokeObjectURL(this.video.src);
  }

  // All nodes are going to be replaced; those within subgraphs are not told of their end.
  static closeAll() {
    for (const player of [...open]) player.close();
  }

  // The node is gone. A video outside of the page would go on speaking.
  close() {
    this.release();
    this.video.pause();
    this.video.removeAttribute("src");
    this.video.load();
    open.delete(this);
  }
}
