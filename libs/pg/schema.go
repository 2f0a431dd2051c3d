package pg

import (
	"embed"
	"io/fs"
)

//go:embed migrations/*.sql
var baseFiles embed.FS

// Base is the schema `a3`, which every other one rests on; it is migrated first.
func Base() Migration { return Migration{Schema: "a3", Files: sub(baseFiles)} }

// Schema is the migrations that a service embeds in its folder `migrations`.
func Schema(name string, files embed.FS) Migration { return Migration{Schema: name, Files: sub(files)} }

func sub(files embed.FS) fs.FS {
	f, err := fs.Sub(files, "migrations")
	if err != nil {
		// fs.Sub fails for an invalid path only, and this one is a constant.
		panic(err)
	}
	return f
}
