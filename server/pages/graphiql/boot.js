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
  roleField.addEventListener("change", () => become(roleField.value, logins));
}

function become(role, logins) {
  roleField.value = role;
  tokenField.value = logins[role];
  document.getElementById("viewer").requestSubmit();
}

// Each tab of ours says who asks: "# Ask as: admin". Going to one becomes that role, until a role is chosen by hand.
function followTabs(logins) {
  let before = 0;
  let isChosen = false;
  roleField.addEventListener("change", () => (isChosen = true));
  return ({ tabs, activeTabIndex }) => {
    if (activeTabIndex === before) return; // typing is told too
    before = activeTabIndex;
    const [, role] = /^# Ask as: (\w+)/m.exec(tabs[activeTabIndex]?.query ?? "") ?? [];
    if (!isChosen && role in logins && role !== roleField.value) become(role, logins);
  };
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
  const followed = followTabs(logins);
  const show = () =>
    root.render(
      React.createElement(GraphiQL, {
        fetcher: fetcherWith(tokenField.value.trim()), // another one makes GraphiQL ask for the schema again
        defaultTabs: tabs,
        defaultEditorToolsVisibility: false,
        shouldPersistHeaders: false,
        plugins,
        onTabChange: followed,
      }),
    );
  document.getElementById("viewer").addEventListener("submit", (event) => {
    event.preventDefault();
    show();
  });
  show();
}

start();
