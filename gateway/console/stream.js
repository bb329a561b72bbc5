/* A client of prices.v1: applies what it is told, checks every range, resumes where it stood. */

export function follow(who, { reset, apply, link }) {
  let token = null, through = null, parts = [], socket = null, stopped = false, pause = 500, timer = 0;

  const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

  function connect() {
    const { key, retailer } = who();
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    socket = new WebSocket(`${scheme}//${location.host}/api/v1/stream`, "prices.v1");
    socket.onopen = () => socket.send(JSON.stringify({ type: "authenticate", key }));
    socket.onmessage = (event) => take(JSON.parse(event.data), retailer);
    socket.onclose = () => {
      if (stopped) return;
      link("reconnecting …");
      timer = setTimeout(connect, pause);
      pause = Math.min(pause * 2, 8000);
    };
  }

  function take(message, retailer) {
    switch (message.type) {
      case "authenticated": {
        const wish = { type: "subscribe", all: true };
        if (retailer) wish.retailer = retailer;
        if (token) wish.resume = token;
        socket.send(JSON.stringify(wish));
        break;
      }
      case "resync_required":
        parts = [];
        break;
      case "snapshot":
        for (const price of message.prices) parts.push(price);
        if (!message.last) break;
        reset(parts);
        parts = [];
        ({ through, token } = message);
        live();
        break;
      case "delta":
      case "heartbeat":
        if (!same(message.after, through)) {
          token = null; // a gap: never guess, begin again from a snapshot
          socket.close();
          break;
        }
        if (message.prices) apply(message.prices);
        ({ through, token } = message);
        live();
        break;
      case "error":
        link(message.problem.detail || message.problem.title);
        break;
    }
  }

  function live() {
    pause = 500;
    link("live");
  }

  connect();
  return {
    stop() {
      stopped = true;
      clearTimeout(timer);
      socket.close();
    },
  };
}
