-- How long this call has taken. The caller cannot measure that, because its measurement includes the network.

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

-- Whether to leave the other jobs of this call to the next call. The search for one job in a long list may
-- take 20 ms, and it is unknown beforehand which jobs take long. Never true without TIME.
local function has_worked_enough()
  return began and micros() - began > 500
end
