// The page is complete without this: a theme switch, a reading of the curves under the pointer,
// and protocol and recipe unfolded on paper.
(() => {
  const root = document.documentElement, button = document.getElementById('theme');
  const store = { get: () => { try { return localStorage.getItem('ebb-theme'); } catch { return null; } },
                  set: v => { try { localStorage.setItem('ebb-theme', v); } catch { /* a page from disk may not store */ } } };
  const saved = store.get();
  if (!root.dataset.theme && (saved === 'light' || saved === 'dark')) root.dataset.theme = saved;
  button.hidden = false;
  button.onclick = () => {
    const dark = root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
    store.set(root.dataset.theme = dark ? 'light' : 'dark');
  };
  addEventListener('beforeprint', () => document.querySelectorAll('.group, .recipe').forEach(d => { d.open = true; }));

  // Paths hold whole numbers: one absolute point a piece, then steps relative to the one before.
  const points = path => path.getAttribute('d').split('M').slice(1).flatMap(piece => {
    const n = piece.match(/-?\d+/g).map(Number);
    let x = n[0], y = n[1];
    const out = [];
    for (let i = 2; i + 1 < n.length; i += 2) { x += n[i]; y += n[i + 1]; out.push([x, 100 - y / 10]); }
    return out;
  });
  document.querySelectorAll('.plot').forEach(plot => {
    const from = +plot.dataset.from, to = +plot.dataset.to, area = plot.querySelector('.area');
    const out = plot.closest('figure').querySelector('.readout');
    let lines, line, step;
    const show = at => {
      lines ??= [...plot.querySelectorAll('.line')].map(p => ({ name: p.dataset.name, points: points(p) }));
      step = Math.round(Math.min(to, Math.max(from, at)));
      const read = lines.map(l => {
        let near = null;
        for (const p of l.points) if (!near || Math.abs(p[0] - step) <= Math.abs(near[0] - step)) near = p;
        return near && Math.abs(near[0] - step) <= (to - from) / 50 ? l.name + '\u2002' + near[1].toFixed(1) : null;
      }).filter(Boolean);
      out.textContent = 'step ' + step.toLocaleString('en') + ' \u2003 ' + read.join(' \u2003 ');
      if (!line) { line = document.createElement('i'); line.className = 'at'; area.append(line); }
      line.style.left = 100 * (step - from) / (to - from) + '%';
    };
    const hide = () => { line?.remove(); line = null; out.textContent = ''; };
    plot.addEventListener('pointermove', e => {
      const box = area.getBoundingClientRect();
      show(from + (to - from) * (e.clientX - box.left) / box.width);
    });
    plot.addEventListener('pointerleave', hide);
    plot.addEventListener('blur', hide);
    plot.addEventListener('keydown', e => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[e.key];
      if (!by) return;
      e.preventDefault();
      show((step ?? from) + by * (e.shiftKey ? 10 : 1) * Math.max(1, Math.round((to - from) / 500)));
    });
  });
})();
