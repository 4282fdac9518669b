// Starts GraphiQL with the tabs of the page and a token that lives in this page's memory alone.
"use strict";

const place = document.getElementById("graphiql");
const tokenField = document.getElementById("token");
const roleField = document.getElementById("role");
const LOCAL = { url: "graphql", socket: new URL("graphql", location.href.replace(/^http/, "ws")).href };

// The headers of a request are also the payload that opens a socket; lower case, so that each name is there once.
function headersWith(token, edited) {
  const named = Object.entries(edited ?? {}).map(([name, value]) => [name.toLowerCase(), value]);
  return { ...(token && { authorization: `Bearer ${token}` }), ...Object.fromEntries(named) };
}

function fetcherWith(token) {
  const send = GraphiQL.createFetcher({
    url: LOCAL.url,
    subscriptionUrl: LOCAL.socket,
    enableIncrementalDelivery: false,
  });
  return (asked, options) => send(asked, { ...options, headers: headersWith(token, options?.headers) });
}

async function jsonOf(address) {
  const answer = await fetch(address);
  return answer.ok ? answer.json() : {};
}

function offer(logins) {
  roleField.append(...Object.keys(logins).map((role) => new Option(role, role)));
  document.getElementById("roles").hidden = false;
  roleField.value = "teacher" in logins ? "teacher" : roleField.value;
  tokenField.value = logins[roleField.value];
  roleField.addEventListener("change", () => {
    tokenField.value = logins[roleField.value];
    document.getElementById("viewer").requestSubmit();
  });
}

async function start() {
  const [tabs, logins] = await Promise.all([
    jsonOf(place.dataset.tabs),
    place.dataset.logins ? jsonOf(place.dataset.logins) : {},
  ]);
  if (Object.keys(logins).length > 0) offer(logins);
  place.textContent = "";
  const root = ReactDOM.createRoot(place);
  const plugins = [GraphiQLPluginExplorer.explorerPlugin()];
  const show = () =>
    root.render(
      React.createElement(GraphiQL, {
        fetcher: fetcherWith(tokenField.value.trim()), // another one makes GraphiQL ask for the schema again
        defaultTabs: tabs,
        defaultEditorToolsVisibility: false,
        shouldPersistHeaders: false,
        plugins,
      }),
    );
  document.getElementById("viewer").addEventListener("submit", (event) => {
    event.preventDefault();
    show();
  });
  show();
}

start();
