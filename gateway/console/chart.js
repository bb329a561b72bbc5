/* One listing's price over time, drawn as SVG: steps, because a price holds until the next one. */

const NAMESPACE = "http://www.w3.org/2000/svg";
const LEFT = 52, RIGHT = 12, TOP = 10, STOCK_HEIGHT = 42, BOTTOM = 22;

function shape(name, attributes) {
  const element = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

/* Return a path that holds each value until the next moment, and breaks where there is none. */
function steps(points, key, x, y, end) {
  let path = "", pen = false;
  points.forEach((point, index) => {
    const value = point[key];
    if (value === null) { pen = false; return; }
    const from = x(point.at), to = index + 1 < points.length ? x(points[index + 1].at) : end;
    path += `${pen ? "L" : "M"}${from.toFixed(1)} ${y(value).toFixed(1)}H${to.toFixed(1)}`;
    pen = true;
  });
  return path;
}

/* Return the outline between two stepped lines, one closed piece a point. */
function band(points, low, high, x, y, end) {
  return points.map((point, index) => {
    if (point[low] === null || point[high] === null) return "";
    const from = x(point.at), to = index + 1 < points.length ? x(points[index + 1].at) : end;
    return `M${from.toFixed(1)} ${y(point[low]).toFixed(1)}H${to.toFixed(1)}V${y(point[high]).toFixed(1)}H${from.toFixed(1)}Z`;
  }).join("");
}

function niceStep(span, wanted) {
  const rough = span / wanted, power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
}

/* Bounds far from every price would flatten what matters, so they are cut at the edge. */
function extent(points) {
  const prices = points.flatMap((p) => [p.current, p.recommended, p.rival]).filter((v) => v !== null);
  if (!prices.length) return null;
  let low = Math.min(...prices), high = Math.max(...prices);
  const room = Math.max((high - low) * 0.9, high * 0.06);
  for (const point of points) {
    if (point.floor !== null && point.floor > low - room) low = Math.min(low, point.floor);
    if (point.ceiling !== null && point.ceiling < high + room) high = Math.max(high, point.ceiling);
  }
  const margin = Math.max((high - low) * 0.08, high * 0.01);
  return [Math.max(0, low - margin), high + margin];
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZone: "UTC" });

/* Draw, and return what tells of the point nearest to a place. */
export function draw(svg, points, now) {
  svg.replaceChildren();
  const width = svg.clientWidth || 600, height = svg.clientHeight || 250;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const range = extent(points);
  if (range === null) {
    const text = shape("text", { x: width / 2, y: height / 2, "text-anchor": "middle", class: "axis" });
    text.textContent = "No price was decided yet.";
    svg.append(text);
    return null;
  }
  const right = width - RIGHT, floorLine = height - BOTTOM - STOCK_HEIGHT - 8;
  const first = points[0].at, last = Math.max(now, points[points.length - 1].at, first + 1000);
  const x = (at) => LEFT + ((at - first) / (last - first)) * (right - LEFT);
  const y = (price) => {
    const clipped = Math.min(Math.max(price, range[0]), range[1]);
    return floorLine - ((clipped - range[0]) / (range[1] - range[0])) * (floorLine - TOP);
  };

  const step = niceStep(range[1] - range[0], 4);
  for (let price = Math.ceil(range[0] / step) * step; price <= range[1]; price += step) {
    svg.append(shape("line", { x1: LEFT, x2: right, y1: y(price), y2: y(price), class: "grid" }));
    const text = shape("text", { x: LEFT - 8, y: y(price) + 4, "text-anchor": "end", class: "axis" });
    text.textContent = price.toFixed(step < 1 ? 2 : step < 10 ? 1 : 0);
    svg.append(text);
  }
  const ticks = Math.max(2, Math.floor((right - LEFT) / 130));
  for (let tick = 0; tick <= ticks; tick += 1) {
    const at = first + ((last - first) * tick) / ticks;
    const anchor = tick === 0 ? "start" : tick === ticks ? "end" : "middle";
    const text = shape("text", { x: x(at), y: height - 6, "text-anchor": anchor, class: "axis" });
    text.textContent = clock.format(at);
    svg.append(text);
  }

  svg.append(shape("path", { d: band(points, "floor", "ceiling", x, y, right), class: "band" }));
  svg.append(shape("path", { d: steps(points, "floor", x, y, right), class: "band-edge" }));
  svg.append(shape("path", { d: steps(points, "ceiling", x, y, right), class: "band-edge" }));
  const stocks = points.map((p) => p.stock).filter((v) => v !== null);
  if (stocks.length) {
    const most = Math.max(1, ...stocks), base = height - BOTTOM;
    const up = (stock) => base - (stock / most) * STOCK_HEIGHT;
    const zero = points.map((point) => ({ ...point, none: point.stock === null ? null : 0 }));
    svg.append(shape("path", { d: band(zero, "none", "stock", x, up, right), class: "area-stock" }));
    svg.append(shape("line", { x1: LEFT, x2: right, y1: base, y2: base, class: "grid" }));
    const text = shape("text", { x: LEFT - 8, y: up(most) + 10, "text-anchor": "end", class: "axis" });
    text.textContent = `${most} pc`;
    svg.append(text);
  }
  svg.append(shape("path", { d: steps(points, "rival", x, y, right), class: "line-rival" }));
  svg.append(shape("path", { d: steps(points, "recommended", x, y, right), class: "line-recommended" }));
  svg.append(shape("path", { d: steps(points, "current", x, y, right), class: "line-price" }));

  const cursor = shape("line", { y1: TOP, y2: height - BOTTOM, class: "cursor", visibility: "hidden" });
  const dot = shape("circle", { r: 4.5, class: "dot", visibility: "hidden" });
  svg.append(cursor, dot);
  return {
    nearest(pixels) {
      const at = first + ((pixels - LEFT) / (right - LEFT)) * (last - first);
      let index = 0;
      while (index + 1 < points.length && points[index + 1].at <= at) index += 1;
      return index;
    },
    mark(index) {
      const point = points[index];
      const price = point.current ?? point.recommended;
      cursor.setAttribute("x1", x(point.at));
      cursor.setAttribute("x2", x(point.at));
      cursor.setAttribute("visibility", "visible");
      if (price !== null) {
        dot.setAttribute("cx", x(point.at));
        dot.setAttribute("cy", y(price));
        dot.setAttribute("visibility", "visible");
      }
      return `${clock.format(point.at)} UTC`;
    },
    clear() {
      cursor.setAttribute("visibility", "hidden");
      dot.setAttribute("visibility", "hidden");
    },
  };
}
