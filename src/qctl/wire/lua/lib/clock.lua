-- How long this call has taken. The caller cannot measure it: that would include the network.

-- Now, in microseconds; nil if the user may not run TIME.
local function micros()
  local now = redis.pcall("TIME")
  return not now.err and now[1] * 1000000 + now[2] or nil
end
local began = micros()

-- In microseconds, as text; "" if unknown.
local function took()
  return began and string.format("%.0f", micros() - began) or ""
end

-- Whether the other jobs of this call shall wait for the next call. A single job may take 20 ms if it is
-- searched for in a long list, and nobody knows beforehand which one does.
local function has_worked_enough()
  return began and micros() - began > 500
end
