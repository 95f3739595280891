SELECT
  f.time_hour,
  f.carrier,
  a.name AS carrier_name,
  f.flight,
  f.tailnum,
  p.model,
  CAST(p.seats AS INT) AS seats,
  f.origin,
  f.dest,
  CAST(f.dep_delay AS INT) AS dep_delay,
  CAST(f.arr_delay AS INT) AS arr_delay,
  CAST(f.air_time AS INT) AS air_time,
  CAST(f.distance AS INT) AS distance,
  w.temp,
  w.wind_speed,
  w.visib
FROM source AS f
LEFT JOIN airlines AS a ON a.carrier = f.carrier
LEFT JOIN planes AS p ON p.tailnum = f.tailnum
LEFT JOIN weather AS w ON w.origin = f.origin
