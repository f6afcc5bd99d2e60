// The player's words, from locales/*/main.json, in the language that the page is set to.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

let languages = {};

export async function loadTexts() {
  try {
    languages = await (await api.fetchApi("/i18n")).json();
  } catch (error) {
    console.warn("LiveTalk: the translations cannot be had:", error);
  }
}

// The text at a path such as "player.idle", its {places} filled in; `otherwise` where there is none.
export function say(path, values = {}, otherwise = "") {
  const chosen = app.extensionManager?.setting?.get("Comfy.Locale") ?? "en";
  for (const language of [chosen, chosen.split("-")[0], "en"]) {
    const text = path.split(".").reduce((part, name) => part?.[name], languages[language]?.livetalk);
    if (text) return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
  }
  return otherwise;
}
