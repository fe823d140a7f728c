-- What is left of each limit. KEYS: one per limit. ARGV: now (tests only), per limit: kind most furthest start end
-- Answers {1, now, left, full in, ...} or {3, now} for another period
local reply = {1, now}
for index = 1, #KEYS do
    local at = 2 + (index - 1) * 5
    local kind, period_start, period_end = ARGV[at], tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
    if kind == 'b' and (now < period_start or now >= period_end) then
        return {3, now}
    end
    local left, full = look(kind, KEYS[index], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), period_end)
    reply[#reply + 1] = left
    reply[#reply + 1] = full
end
return reply
