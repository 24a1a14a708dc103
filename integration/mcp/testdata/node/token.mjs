// Preloaded (node --import): adds the token in GB_TOKEN to every request, for a
// client that can't show one. A proxy would change how answers are streamed.
import http from 'node:http';
import { syncBuiltinESMExports } from 'node:module';
import { getGlobalDispatcher, setGlobalDispatcher } from 'undici';

const fetchAsItWas = globalThis.fetch;
globalThis.fetch = (input, init = {}) => {
  const headers = new Headers(init.headers ?? (input instanceof Request ? input.headers : undefined));
  headers.set('authorization', `Bearer ${process.env.GB_TOKEN}`);
  return fetchAsItWas(input, { ...init, headers });
};

// undici's own request goes by its dispatcher.
setGlobalDispatcher(getGlobalDispatcher().compose((dispatch) => (options, handler) => {
  // Headers come as an object, as a flat array, or as something to iterate.
  let h = options.headers ?? {};
  if (Array.isArray(h)) {
    h = [...h, 'authorization', `Bearer ${process.env.GB_TOKEN}`];
  } else {
    h = { ...(typeof h[Symbol.iterator] === 'function' ? Object.fromEntries(h) : h) };
    for (const k of Object.keys(h)) if (k.toLowerCase() === 'authorization') delete h[k];
    h.authorization = `Bearer ${process.env.GB_TOKEN}`;
  }
  options = { ...options, headers: h };
  return dispatch(options, handler);
}));

// And node:http.
const requestAsItWas = http.request;
http.request = (...args) => {
  const req = requestAsItWas(...args);
  req.setHeader('authorization', `Bearer ${process.env.GB_TOKEN}`);
  return req;
};
syncBuiltinESMExports();
