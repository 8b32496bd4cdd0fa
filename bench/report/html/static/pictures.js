// Pixels: sheets of samples are taken apart on a canvas; mean, deviation and difference are computed here.

const embedded = new Map(Object.entries(JSON.parse($("embedded").textContent)));
const inFiles = new Set(report.pictures.files);
const COLUMNS = 8; // samples in a row of a sheet, as in pictures.py

/** Called by the files beside the page. */
function addPictures(pictures) {
  for (const [key, uri] of Object.entries(pictures)) embedded.set(key, uri);
}

const once = new Map();
/** Remember promises, the latest 300: walking through images must not fill the memory. */
function remembered(key, make) {
  if (!once.has(key)) once.set(key, make());
  const found = once.get(key);
  once.delete(key);
  once.set(key, found);
  if (once.size > 300) once.delete(once.keys().next().value);
  return found;
}

/** Have the pictures of an image here, from the page or from its file. */
function load(number) {
  if (!inFiles.has(number)) return Promise.resolve();
  return remembered(`file ${number}`, () => new Promise((done, fail) => {
    const name = `${report.pictures.folder}/${String(number).padStart(6, "0")}.js`;
    const script = el("script", { src: name });
    script.onload = () => { script.remove(); done(); };
    script.onerror = () => { once.delete(`file ${number}`); fail(new Error(`The folder ${report.pictures.folder} with the pictures is not beside this page.`)); };
    document.head.append(script);
  }));
}

async function decoded(number, key) {
  await load(number);
  const image = new Image();
  image.src = embedded.get(key);
  await image.decode();
  return image;
}

function canvasOf(width, height) {
  const canvas = el("canvas", { width, height });
  return [canvas, canvas.getContext("2d", { willReadFrequently: true })];
}

/** All pixels of a picture, as ImageData. */
function wholePicture(number, key) {
  return remembered(`whole ${key}`, async () => {
    const image = await decoded(number, key);
    const [, context] = canvasOf(image.naturalWidth, image.naturalHeight);
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, image.naturalWidth, image.naturalHeight);
  });
}

/** The samples of an image by a row, as ImageData each; none where none were kept. */
function samplesOf(row, number) {
  const [key, count] = report.pictures.sheets[row.number][number] || [];
  if (!key) return Promise.resolve([]);
  return remembered(`samples ${key}`, async () => {
    const image = await decoded(number, key);
    const columns = Math.min(count, COLUMNS);
    const width = image.naturalWidth / columns;
    const height = image.naturalHeight / Math.ceil(count / columns);
    const [, context] = canvasOf(image.naturalWidth, image.naturalHeight);
    context.drawImage(image, 0, 0);
    return Array.from({ length: count }, (_, j) =>
      context.getImageData((j % columns) * width, Math.floor(j / columns) * height, width, height));
  });
}

const countOf = (row, number) => report.pictures.sheets[row.number][number]?.[1] ?? 0;
const keyOf = (kind, run, scale, number) => report.pictures[kind][run]?.[scale]?.[number];

function meanOf(samples) {
  const mean = new Float32Array(samples[0].data.length);
  for (const s of samples) for (let i = 0; i < mean.length; i += 1) mean[i] += s.data[i] / samples.length;
  return mean;
}

function asImage(values, width, height) {
  return new ImageData(Uint8ClampedArray.from(values, Math.round), width, height);
}

const magma = report.spread.colours.map((c) => [1, 3, 5].map((i) => parseInt(c.slice(i, i + 2), 16)));

/** Colours of intensities in [0, 1] per pixel: dark at 0, bright at `spread.most`. */
function coloured(values, width, height) {
  const image = new ImageData(width, height);
  values.forEach((value, i) => {
    const at = Math.min(255, Math.floor((value / report.spread.most) * 256));
    image.data.set([...magma[at], 255], 4 * i);
  });
  return image;
}

/** Standard deviation over samples, root mean square over colours, in intensities. */
function deviation(samples) {
  const mean = meanOf(samples);
  const found = new Float32Array(mean.length / 4);
  for (const s of samples) {
    for (let i = 0; i < mean.length; i += 1) if (i % 4 < 3) found[i >> 2] += (s.data[i] - mean[i]) ** 2;
  }
  return found.map((v) => Math.sqrt(v / 3 / (samples.length - 1)) / 255);
}

/** Root mean square over colours of a difference, in intensities. */
function distance(a, b) {
  const found = new Float32Array(a.length / 4);
  for (let i = 0; i < a.length; i += 1) if (i % 4 < 3) found[i >> 2] += (a[i] - b[i]) ** 2 / 3;
  return found.map((v) => Math.sqrt(v) / 255);
}

/** Repeat pixels, so that a low-resolution image can lie over a high-resolution one. */
function enlarged(image, width, height) {
  if (image.width === width) return image;
  const large = new ImageData(width, height);
  const [from, to] = [new Uint32Array(image.data.buffer), new Uint32Array(large.data.buffer)];
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      to[y * width + x] = from[Math.floor((y * image.height) / height) * image.width + Math.floor((x * image.width) / width)];
    }
  }
  return large;
}

/**
 * The pixels of a picture by its name, null where it is not kept.
 * Names: "truth", "lr", or a row's id and "s0", "s1", ..., "mean", "std", "error" (of the mean), as in "0.dps_x8/mean".
 */
async function pixels(number, name, scale, run) {
  if (name === "truth" || name === "lr") {
    const key = keyOf(name, run, scale, number);
    return key ? wholePicture(number, key) : null;
  }
  const cut = name.lastIndexOf("/");
  const row = rowById(name.slice(0, cut));
  const what = name.slice(cut + 1);
  const samples = row ? await samplesOf(row, number) : [];
  if (!samples.length) return null;
  const { width, height } = samples[0];
  if (what === "mean") return asImage(meanOf(samples), width, height);
  if (what === "std") return samples.length > 1 ? coloured(deviation(samples), width, height) : null;
  if (what === "error") {
    const truth = await pixels(number, "truth", row.scale, row.run);
    return truth ? coloured(distance(meanOf(samples), truth.data), width, height) : null;
  }
  return samples[Number(what.slice(1))] || null;
}

/** What a picture is called. */
function pictureName(name) {
  if (name === "truth") return "truth";
  if (name === "lr") return "low resolution";
  const cut = name.lastIndexOf("/");
  const row = rowById(name.slice(0, cut));
  const what = name.slice(cut + 1);
  const texts = { mean: "mean", std: "standard deviation", error: "mean − truth" };
  return row ? `${rowName(row)}, ${texts[what] || `sample ${Number(what.slice(1)) + 1}`}` : name;
}

function paint(canvas, image) {
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d").putImageData(image, 0, 0);
}
