-- For wrk: the same request again and again, but for an id of its own that nobody between here and there looks at. Each
-- connection waits 1 ms before it asks, so that what arrives does not depend on how fast the machine is.
local number = 0

function delay()
  return 1
end

function request()
  number = number + 1
  return wrk.format("GET", nil, { ["User-Agent"] = "numbered", ["X-Truth"] = tostring(number) })
end
