// node open_template.mjs URL OUT: opens a shipped template from the page's own browser, presses Run, watches the live
// player. Prints what happened as one line of JSON; leaves pictures in OUT.
import { createRequire } from "node:module";
import { writeFileSync } from "node:fs";

const require = createRequire(process.env.LIVETALK_PAGE + "/");
const { chromium } = require("playwright-core");
const [url, out, template] = process.argv.slice(2);
const facts = { errors: [], outside: [], times: {} };
const began = Date.now();
const since = () => (Date.now() - began) / 1000;

const browser = await chromium.launch({
  executablePath: process.env.LIVETALK_CHROMIUM,
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--autoplay-policy=no-user-gesture-required"],
});
const page = await browser.newPage({ viewport: { width: 1440, height: 810 } });
page.setDefaultTimeout(240_000);
// The page asks for things of the internet; here it has only its host.
await page.route("**/*", (route) => {
  const asked = new URL(route.request().url());
  if (asked.hostname === "127.0.0.1" || ["data:", "blob:"].includes(asked.protocol)) return route.continue();
  facts.outside.push(asked.hostname);
  return route.abort();
});
page.on("pageerror", (error) => facts.errors.push(String(error).slice(0, 300)));

await page.goto(url, { waitUntil: "domcontentloaded" });
await page.waitForFunction(() => window.LiteGraph?.registered_node_types?.ParallelVAEDecode && window.app?.canvas);
facts.times.ready = since();

// The template browser, section of the pack.
await page.evaluate(() => window.app.extensionManager.command.execute("Comfy.BrowseTemplates"));
await page.getByRole("dialog").waitFor();
await page.waitForTimeout(1500);
await page.getByRole("dialog").getByText("livetalk", { exact: true }).first().click();
const card = page.getByRole("dialog").locator(`[data-testid="template-workflow-${template}"]`).first();
await card.waitFor();
await page.waitForTimeout(1000);
await page.screenshot({ path: `${out}/templates.png` });
await card.dispatchEvent("click"); // a busy machine paints too slowly for a pointer
await page.waitForFunction(() => window.app.graph.nodes?.some((node) => node.type === "ParallelVAEDecode"));
facts.times.opened = since();
facts.nodes = await page.evaluate(() => window.app.graph.nodes.map((node) => node.type));
await page.waitForTimeout(1500);
await page.screenshot({ path: `${out}/opened.png` });

await page.evaluate(() => {
  const sampler = window.app.graph.nodes.find((node) => node.type === "StreamChunkSampler");
  sampler.widgets.find((widget) => widget.name === "seed").value = Date.now() % 1e6; // a host that has run it before
  window.livetalkTest = { chunks: 0, made: 0, done: 0, shown: 0, playing: 0 };
  const seen = window.livetalkTest;
  window.app.api.addEventListener("livetalk.chunk", () => {
    seen.chunks += 1;
    seen.made ||= performance.now();
  });
  window.app.api.addEventListener("execution_success", () => { seen.done = performance.now(); });
  const look = () => {
    const video = [...document.querySelectorAll("video")].find((one) => one.src.startsWith("blob:"));
    if (video && video.videoWidth && !seen.shown) seen.shown = performance.now();
    if (video && video.currentTime > 0.3 && !seen.playing) seen.playing = performance.now();
    if (!seen.done) setTimeout(look, 50);
  };
  look();
});
const pressed = await page.evaluate(() => performance.now());
await page.getByRole("button", { name: /^Run/ }).first().click({ force: true });
await page.waitForFunction(() => window.livetalkTest.playing > 0, null, { timeout: 300_000 });
await page.waitForFunction(() => window.livetalkTest.chunks >= 3 || window.livetalkTest.done, null, { timeout: 300_000 });
await page.screenshot({ path: `${out}/running.png` });
await page.waitForFunction(() => window.livetalkTest.done > 0, null, { timeout: 300_000 });
const seen = await page.evaluate(() => window.livetalkTest);
facts.madeAfter = (seen.made - pressed) / 1000;
facts.shownAfter = (seen.shown - pressed) / 1000;
facts.playingAfter = (seen.playing - pressed) / 1000;
facts.doneAfter = (seen.done - pressed) / 1000;
facts.chunks = seen.chunks;
await page.waitForTimeout(1500);
await page.screenshot({ path: `${out}/done.png` });
writeFileSync(`${out}/graph.json`, JSON.stringify(await page.evaluate(() => window.app.graph.serialize())));
console.log(JSON.stringify(facts));
await browser.close();
