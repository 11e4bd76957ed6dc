-- Put a job where it runs next: at the tail of wait or of the paused list, or first of its priority
-- (primitive P7, front-of-class variant). The caller writes the marker.
--@include ready_list

local function enqueue_next(base, id)
  local priority = tonumber(redis.call("HGET", base .. id, "priority") or "0") or 0
  if priority > 0 then
    redis.call("ZADD", base .. "prioritized", string.format("%.0f", priority * 4294967296), id)
  else
    redis.call("RPUSH", target_list(base), id)
  end
end
