-- What wrk sends and says: the prepared bodies in turns, each `#` in them the number of the request; JSON at the end.
local SEPARATOR = "\30"
local bodies, number = {}, 0

function init(_)
  wrk.method = "POST"
  wrk.headers["content-type"] = "application/json"
  wrk.headers["accept"] = "application/json"
  local token = os.getenv("WRK_TOKEN")
  if token ~= "" then wrk.headers["authorization"] = "Bearer " .. token end
  local file = assert(io.open(os.getenv("WRK_BODIES"), "rb"))
  for body in file:read("*a"):gmatch("[^" .. SEPARATOR .. "]+") do bodies[#bodies + 1] = body end
  file:close()
end

function request()
  number = number + 1
  local body = bodies[(number - 1) % #bodies + 1]:gsub("#", tostring(number))
  return wrk.format(nil, nil, nil, body)
end

function done(summary, latency, _)
  local wrong = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"seconds":%f,"wrong":%d,"p50_ms":%f,"p95_ms":%f,"p99_ms":%f}\n',
    summary.requests, summary.duration / 1e6,
    wrong.connect + wrong.read + wrong.write + wrong.status + wrong.timeout,
    latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3))
end
