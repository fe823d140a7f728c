-- Checks every limit, and only if all pass takes from every one. Also buys slices: then `want` is more than `least`.
-- KEYS: reservation, marker of the organisation, one per limit
-- ARGV: now (tests only), lifetime, marker needed, divisor, lease time, holder, per limit: kind least want most furthest start end shadow
-- Answers: {1|2, now, held, left, full in, ...} allowed | before; {0, now, limit, wait, left} refused; {3, now} other period; {4, now} no marker
local lifetime, marker, divisor = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local lease_time, holder = tonumber(ARGV[5]), ARGV[6]
local rows = {}
for index = 1, #KEYS - 2 do
    local at = 7 + (index - 1) * 8
    local row = {
        kind = ARGV[at], key = KEYS[index + 2], least = tonumber(ARGV[at + 1]), want = tonumber(ARGV[at + 2]),
        most = tonumber(ARGV[at + 3]), furthest = tonumber(ARGV[at + 4]), start = tonumber(ARGV[at + 5]),
        period_end = tonumber(ARGV[at + 6]), shadow = ARGV[at + 7] == '1',
    }
    if row.kind == 'b' and (now < row.start or now >= row.period_end) then
        return {3, now}
    end
    rows[index] = row
end
if marker == '1' and redis.call('EXISTS', KEYS[2]) == 0 then
    return {4, now}
end
for _, row in ipairs(rows) do
    row.left, row.full = look(row.kind, row.key, row.most, row.furthest, row.period_end)
end

local held = held_by(KEYS[1])
if held then
    local reply = {2, now}
    for index, row in ipairs(rows) do
        reply[#reply + 1] = held ~= 'done' and held[index] or 0
        reply[#reply + 1] = row.left
        reply[#reply + 1] = row.full
    end
    return reply
end

local refused, longest
for index, row in ipairs(rows) do
    if not row.shadow and row.least > row.left then
        local wait = SLOT_WAIT
        if row.kind == 'r' then
            wait = row.least - row.left
        elseif row.kind == 'b' then
            wait = row.period_end == NEVER and NEVER or row.period_end - now
        end
        if not refused or wait > longest then
            refused, longest = index, wait
        end
    end
end
if refused then
    return {0, now, refused - 1, longest, rows[refused].left}
end

local reply, costs = {1, now}, {}
for index, row in ipairs(rows) do
    local cost = math.max(math.min(row.want, math.floor(math.max(row.left, 0) / divisor)), row.least)
    costs[index] = cost
    if cost > 0 then
        if row.kind == 'r' then
            keep_arrival(row.key, math.min(now + row.full + cost, now + row.furthest))
            row.full = row.full + cost
        elseif row.kind == 's' then
            redis.call('ZREMRANGEBYSCORE', row.key, '-inf', whole(now - CLOCK_BACK))
            lease(row.key, holder, cost, now + math.min(lease_time, lifetime), lease_time)
        else
            keep_budget(row.key, row.most - row.left + cost, row.period_end)
        end
    end
    reply[#reply + 1] = cost
    reply[#reply + 1] = row.left - cost
    reply[#reply + 1] = row.full
end
hold(KEYS[1], now + lifetime, list_of(costs))
return reply
