package iam

import (
	"embed"

	"a3os.app/libs/pg"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Schema is people, service accounts, workspaces and members, and what the issuer keeps.
func Schema() pg.Migration { return pg.Schema("iam", migrations) }
