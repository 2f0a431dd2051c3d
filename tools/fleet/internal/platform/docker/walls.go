package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"github.com/google/renameio/v2"

	"a3os.app/tools/fleet/internal/firewall"
	"a3os.app/tools/fleet/internal/platform"
)

// Walls says, a sentence each, how containers are kept apart, and what isn't.
func (p *Platform) Walls(ctx context.Context) []string {
	out := []string{"Each component is a container: read-only, without capabilities or new privileges, under the engine's seccomp filter, bounded in memory, CPU and processes."}
	if ids := slices.Sorted(maps.Values(p.State.Accounts())); len(ids) > 0 {
		out = append(out, fmt.Sprintf("Each runs as a user of its own, of the ids %d to %d, which are nobody's.", ids[0], ids[len(ids)-1]))
	}
	if p.Rules().Standing(ctx) {
		out = append(out, fmt.Sprintf("Each tenant has a network of its own in %s; the packet filter (chains A3-%s-IN and -FWD) keeps it from the machine, from private networks and from every other one.", p.Settings.Networks, p.State.ID))
	} else {
		out = append(out, "The plane's packet filter is not in force: containers may reach what the machine listens on. The supervisor brings it back within a minute, where it can.")
	}
	for _, n := range p.Settings.Outside {
		out = append(out, fmt.Sprintf("A3_OUTSIDE_NETWORKS lets every tenant's discovery reach %s.", n))
	}
	return append(out, "All containers share this machine's kernel and its Docker engine: whoever may speak to the engine is root here. A tenant sees none of this machine; nothing of it can be discovered.")
}

// Guard has the plane's packet filter be in force. stood is what it was asked for the last time, and answers what it is now. Where that is the same
// and the filter was another, somebody else than the plane took it out of force, and it is kept in mind.
func (p *Platform) Guard(ctx context.Context, stood firewall.Rules) (firewall.Rules, error) {
	for {
		rules := p.Rules()
		if len(p.State.Subnets()) == 0 {
			return rules, nil // nothing stands behind it yet
		}
		changed, err := rules.Apply(ctx)
		if ctx.Err() != nil {
			return stood, ctx.Err()
		}
		if err == nil {
			err = p.State.Reload()
		}
		now := p.Rules()
		switch {
		case err == nil && !reflect.DeepEqual(now, rules):
			// Somebody made or gave up a network meanwhile, and this has written the rules of before over those.
			continue
		case err != nil:
			return now, errors.Join(err, p.noteOpening(platform.Opening{At: time.Now().UTC(), Failure: err.Error()}))
		case changed && reflect.DeepEqual(rules, stood):
			return now, errors.Join(ErrOpened, p.noteOpening(platform.Opening{At: time.Now().UTC()}))
		}
		return now, p.noteClosed()
	}
}

// ErrOpened is of walls that somebody else than the plane had taken down, and that stand again.
var ErrOpened = errors.New("the packet filter that keeps tenants' networks apart was changed by somebody else than the plane, and was put back: see docs/operations.md#walls-were-opened")

func (p *Platform) openingFile() string { return filepath.Join(p.Settings.Home, "walls-opened.json") }

func (p *Platform) noteOpening(o platform.Opening) error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return renameio.WriteFile(p.openingFile(), text, 0o600)
}

// noteClosed ends what could not be closed before.
func (p *Platform) noteClosed() error {
	o, err := p.Opened()
	if err != nil || o.Failure == "" {
		return err
	}
	o.Failure = ""
	return p.noteOpening(o)
}

// Opened implements platform.Guarded.
func (p *Platform) Opened() (o platform.Opening, err error) {
	text, err := os.ReadFile(p.openingFile())
	if errors.Is(err, fs.ErrNotExist) {
		return o, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &o)
	}
	if err != nil {
		return o, fmt.Errorf("read when walls were found open: %w", err)
	}
	return o, nil
}
