package migrate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	queuepg "a3os.app/libs/queue/postgres"
	queuesqs "a3os.app/libs/queue/sqs"
)

// Listed is a migration as the program itself tells of it.
type Listed struct {
	// Name is schema and file: `iam/00002_seal_again`.
	Name string `json:"name"`
	// Digest of its text, `sha256:…`.
	Digest string `json:"digest"`
	// SQL is its text, with the words for roles in it.
	SQL string `json:"sql"`
}

// ListConfig is what the role is told: nothing.
type ListConfig struct{}

// List prints every migration of a tenant's database, in the order in which they run, as JSON. It opens nothing. A release records what
// its program says here, and whoever registers one holds it against the release before.
func List(_ context.Context, _ ListConfig) error {
	all, err := All()
	if err != nil {
		return err
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetEscapeHTML(false)
	return enc.Encode(all)
}

// All is every migration of a tenant's database, in order.
func All() ([]Listed, error) {
	var out []Listed
	add := func(name, sql string) {
		sum := sha256.Sum256([]byte(sql))
		out = append(out, Listed{Name: name, Digest: "sha256:" + hex.EncodeToString(sum[:]), SQL: sql})
	}
	for _, schema := range Set() {
		names, err := fs.Glob(schema.Files, "*.sql")
		if err != nil {
			return nil, err
		}
		slices.Sort(names)
		for _, name := range names {
			text, err := fs.ReadFile(schema.Files, name)
			if err != nil {
				return nil, err
			}
			add(schema.Schema+"/"+strings.TrimSuffix(name, ".sql"), string(text))
		}
	}
	queue, err := queuepg.Migrations()
	if err != nil {
		return nil, err
	}
	for _, m := range queue {
		add(fmt.Sprintf("%s/%05d_river", queueSchema, m.Version), m.SQL)
	}
	// Numbered apart from River's, which go on growing.
	add(queueSchema+"/90001_sqs_jobs", queuesqs.Table)
	return out, nil
}
