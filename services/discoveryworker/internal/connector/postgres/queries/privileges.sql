-- Every privilege that an object of this kind can have in this version of the server: an owner's default.
SELECT DISTINCT privilege_type
  FROM aclexplode(acldefault($1::text::"char", 10))
 ORDER BY 1
