// A moving picture and a tone, for who has no camera or keeps it to themselves.

const WIDTH = 640;
const HEIGHT = 360;
const FRAMES = 25;
const TAU = 2 * Math.PI;

function disc(paint, x, y, radius, style) {
  paint.fillStyle = style;
  paint.beginPath();
  paint.arc(x, y, radius, 0, TAU);
  paint.fill();
}

function rounded(paint, x, y, width, height, radius, style) {
  paint.fillStyle = style;
  paint.beginPath();
  paint.roundRect(x, y, width, height, radius);
  paint.fill();
}

function background(paint, hue, time) {
  const sky = paint.createLinearGradient(0, 0, WIDTH, HEIGHT);
  sky.addColorStop(0, `hsl(${hue} 55% 34%)`);
  sky.addColorStop(1, `hsl(${hue + 40} 60% 18%)`);
  paint.fillStyle = sky;
  paint.fillRect(0, 0, WIDTH, HEIGHT);
  for (let n = 0; n < 6; n++) {
    const x = WIDTH * (0.5 + 0.55 * Math.sin(time * (0.11 + n * 0.03) + n * 1.9));
    const y = HEIGHT * (0.5 + 0.5 * Math.cos(time * (0.13 + n * 0.02) + n * 2.7));
    disc(paint, x, y, 40 + 22 * n, `hsl(${hue + 15 * n} 70% 60% / 0.10)`);
  }
}

// Head and shoulders of somebody who talks now and then, and blinks.
function person(paint, hue, time) {
  const talks = Math.sin(time * 0.7 + hue) > -0.2;
  const mouth = talks ? 6 + 12 * Math.abs(Math.sin(time * 9)) : 6;
  const eyes = time % 3.7 < 0.14 ? 1.5 : 7;
  const x = WIDTH / 2 + 10 * Math.sin(time * 0.9);
  const y = 172 + 4 * Math.sin(time * 1.7);
  const skin = `hsl(${hue === 265 ? 26 : 22} 62% ${hue === 265 ? 76 : 58}%)`;
  rounded(paint, x - 125, y + 92, 250, 200, 90, `hsl(${hue} 60% 62%)`);
  rounded(paint, x - 26, y + 50, 52, 70, 24, skin);
  disc(paint, x, y - 16, 84, `hsl(${hue + 20} 45% 16%)`);
  disc(paint, x, y + 4, 72, skin);
  for (const side of [-1, 1]) {
    paint.fillStyle = "#20242c";
    paint.beginPath();
    paint.ellipse(x + side * 27, y - 4, 7, eyes, 0, 0, TAU);
    paint.fill();
  }
  paint.fillStyle = "#7c2d3b";
  paint.beginPath();
  paint.ellipse(x, y + 30, 22, mouth, 0, 0, Math.PI);
  paint.fill();
}

function label(paint, name) {
  const now = new Date();
  const clock = `${now.toTimeString().slice(0, 8)}.${Math.floor(now.getMilliseconds() / 100)}`;
  paint.font = "500 20px system-ui, sans-serif";
  paint.fillStyle = "rgb(255 255 255 / 0.85)";
  paint.textAlign = "right";
  paint.fillText(`${name}’s test picture  ${clock}`, WIDTH - 22, 46);
}

/** A picture of the party called `name`, in colours about `hue`, until its tracks are stopped. */
function picture(name, hue) {
  const canvas = document.createElement("canvas");
  canvas.width = WIDTH;
  canvas.height = HEIGHT;
  const paint = canvas.getContext("2d", { alpha: false });
  const stream = canvas.captureStream(FRAMES);
  const [track] = stream.getVideoTracks();
  const draw = () => {
    if (track.readyState === "ended") return clearInterval(timer);
    const time = performance.now() / 1000;
    background(paint, hue, time);
    person(paint, hue, time);
    label(paint, name);
  };
  const timer = setInterval(draw, 1000 / FRAMES);
  draw();
  return track;
}

/** A quiet tone that swells and falls. Browsers let it sound only after a click. */
function tone(context, pitch) {
  const [voice, breath] = [context.createOscillator(), context.createOscillator()];
  const [volume, depth] = [context.createGain(), context.createGain()];
  voice.frequency.value = pitch;
  breath.frequency.value = 0.5;
  volume.gain.value = 0.05;
  depth.gain.value = 0.04;
  breath.connect(depth).connect(volume.gain);
  const sink = context.createMediaStreamDestination();
  voice.connect(volume).connect(sink);
  voice.start();
  breath.start();
  return sink.stream.getAudioTracks()[0];
}

let context;

/** What `party` sends that has no camera. */
export function testPicture({ name, hue, pitch }) {
  context ??= new AudioContext();
  return new MediaStream([picture(name, hue), tone(context, pitch)]);
}

/** To be called from a click. */
export function letSound() {
  context?.resume();
}
