// What programs do with openai-node, against a running server: node node_client.mjs URL
import OpenAI, { toFile } from "openai";

const url = process.argv[2];
const prompt = "an otter on a teal background";
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });

function check(condition, words) {
  if (!condition) throw new Error(words);
}

const checks = {
  async generates() {
    const asked = { model: "gpt-image-1", prompt, size: "256x256", quality: "auto", background: "auto", seed: 7 };
    const [one, two] = [await client.images.generate(asked), await client.images.generate(asked)];
    check(one.data[0].b64_json === two.data[0].b64_json, "the same seed drew another picture");
  },
  async streams() {
    const kinds = [];
    const stream = await client.images.generate({ model: "demo", prompt, stream: true, partial_images: 2 });
    for await (const event of stream) kinds.push(event.type);
    check(kinds.at(-1) === "image_generation.completed", kinds.join());
    check(kinds.includes("image_generation.partial_image"), kinds.join());
  },
  async edits() {
    const drawn = await client.images.generate({ model: "demo", prompt });
    const image = await toFile(Buffer.from(drawn.data[0].b64_json, "base64"), "a.png", { type: "image/png" });
    const edited = await client.images.edit({ model: "demo", image: [image], prompt });
    check(edited.data[0].b64_json.length > 100, "no picture");
  },
  async models() {
    check((await client.models.list()).data[0].id.startsWith("demo"), "no demo");
  },
  async errors() {
    try {
      await client.images.generate({ model: "demo", prompt, size: "big" });
    } catch (error) {
      check(error.status === 400 && error.message.includes("512x512"), error.message);
      return;
    }
    throw new Error("no error");
  },
};

let failed = 0;
for (const [name, run] of Object.entries(checks)) {
  try {
    await run();
    console.log(`ok openai_node_${name}`);
  } catch (error) {
    failed = 1;
    console.log(`FAILED openai_node_${name}: ${error.message}`);
  }
}
process.exit(failed);
