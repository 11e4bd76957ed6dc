-- How long this call has taken. Only Redis can tell: what its caller sees is the network's time, too.

-- In microseconds; nil where the user may not ask for the time.
local function micros()
  local now = redis.pcall("TIME")
  return not now.err and now[1] * 1000000 + now[2] or nil
end
local began = micros()

-- In microseconds; empty where that is not known.
local function took()
  return began and string.format("%.0f", micros() - began) or ""
end

-- Whether the rest of the call's jobs shall wait for the next call: a job that is searched for in a long list
-- takes 10 ms, and nobody knows before which ones will.
local function has_worked_enough()
  return began and micros() - began > 500
end
