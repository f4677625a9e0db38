"use strict";
// What the site's search runs in where it is opened from disk: browsers start no Worker there, so that a frame takes
// its place. Messages that come before its script is there wait for it.
class FrameWorker extends EventTarget {
  constructor(url) {
    super();
    const frame = document.createElement("iframe");
    frame.hidden = true;
    document.body.append(frame);
    const inner = frame.contentWindow;
    inner.postMessage = (data) => {
      this.dispatchEvent(new MessageEvent("message", { data }));
    };
    const loaded = (source) => new Promise((resolve, reject) => {
      const script = inner.document.createElement("script");
      Object.assign(script, { src: source, onload: resolve, onerror: reject });
      inner.document.body.append(script);
    });
    inner.importScripts = (...sources) => sources.reduce((last, one) => last.then(() => loaded(one)), Promise.resolve());
    this.frame = frame;
    this.ready = loaded(url);
  }

  postMessage(data) {
    const inner = this.frame.contentWindow;
    this.ready.then(() => inner.dispatchEvent(new MessageEvent("message", { data })));
  }

  terminate() {
    this.frame.remove();
  }
}
if (location.protocol === "file:") window.Worker = FrameWorker;
