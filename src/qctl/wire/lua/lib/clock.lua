-- Measure how long this call takes inside Redis. A measurement by the caller would include the network.

-- Now, in microseconds; nil if the user may not run TIME.
local function micros()
  local now = redis.pcall("TIME")
  return not now.err and now[1] * 1000000 + now[2] or nil
end
local began = micros()

-- How long this call has taken, in microseconds, as text; "" if unknown.
local function took()
  return began and string.format("%.0f", micros() - began) or ""
end

-- Whether this call has taken more than 0.5 ms. If so, the script leaves the remaining jobs to the next call,
-- because the search for one more job in a long list may take 20 ms. Never true if the user may not run TIME.
local function has_worked_enough()
  return began and micros() - began > 500
end
