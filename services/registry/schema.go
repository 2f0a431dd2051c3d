package registry

import (
	"embed"

	"a3os.app/libs/pg"
)

//go:embed migrations/*.sql
var files embed.FS

// Schema is the registry's schema, in a database of its own. Its migrations name one role: role_registry.
func Schema() pg.Migration { return pg.Schema("registry", files) }
