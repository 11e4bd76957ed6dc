-- Renew the lock of a running job. Wire format 5.7, but the job stays in the set stalled: the caller takes it
-- out (worker_calls.forget_marks).
--
-- KEYS[1] the job's lock, and no other key: see worker_calls.renew
-- ARGV[1] lock TTL, ms   ARGV[2] lock token
--
-- Answers 1, or 0 if the lock is gone or has another token.

if redis.call("GET", KEYS[1]) == ARGV[2] then
  return redis.call("PEXPIRE", KEYS[1], ARGV[1])
end
return 0
