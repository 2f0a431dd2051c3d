package docker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"a3os.app/deploy/blueprint"
	"a3os.app/tools/fleet/internal/container"
	"a3os.app/tools/fleet/internal/platform"
)

// await returns when a component serves, asked from the machine; one that keeps ending is told with what it said last.
func (p *Platform) await(ctx context.Context, s platform.Set, c blueprint.Component) error {
	if c.Health.Port == "" {
		return nil
	}
	if p.door != nil {
		_, err := p.ask(ctx, askAwait, c.Name)
		return err
	}
	url, err := p.healthURL(s, c)
	if err != nil {
		return err
	}
	const most, every, tooOften = 90 * time.Second, 100 * time.Millisecond, 3
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	name := unitName(s, c.Name)
	for {
		if serves(ctx, url) {
			return nil
		}
		status, err := p.statusOf(ctx, s, name)
		if err != nil {
			return err
		}
		if status.Restarts >= tooOften {
			return p.why(ctx, name, "keeps ending: "+status.LastExit)
		}
		select {
		case <-ctx.Done():
			return p.why(ctx, name, "does not serve after "+most.String())
		case <-tick.C:
		}
	}
}

func (p *Platform) why(ctx context.Context, name, what string) error {
	const lines, patience = 5, 5 * time.Second
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	said, err := p.Engine.Said(ctx, name, lines)
	if err != nil {
		return errors.Join(fmt.Errorf("%s %s", name, what), err)
	}
	return fmt.Errorf("%s %s; it said last: %s", name, what, said)
}

func (p *Platform) statusOf(ctx context.Context, s platform.Set, name string) (container.Status, error) {
	all, err := p.Engine.Status(ctx, s.Name())
	if err != nil {
		return container.Status{}, err
	}
	for _, c := range all {
		if c.Name == name {
			return c, nil
		}
	}
	return container.Status{}, fmt.Errorf("the container of %s is gone: somebody removed it", name)
}

var asking = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Second}

func serves(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	res, err := asking.Do(req)
	if err != nil {
		return false
	}
	return res.Body.Close() == nil && res.StatusCode == http.StatusOK
}

// answers asks a container of the plane by its name, once.
func (p *Platform) answers(ctx context.Context, name string) bool {
	for key, at := range p.State.Hosts() {
		group, member, _ := strings.Cut(key, "/")
		switch {
		case name == group+"/"+member:
			for _, c := range slices.Concat(p.Own.Blueprint.Components, p.Tenants.Components) {
				if c.Name == member && c.Health.Port != "" {
					return serves(ctx, fmt.Sprintf("http://%s:%d%s", at, portOf(c, c.Health.Port), c.Health.Path))
				}
			}
			return member == postgresComponent && open(ctx, at)
		case name == databasesUnit && key == databasesNetwork+"/"+databasesNetwork, name == sampleUnit && key == sampleNetwork+"/"+sampleNetwork:
			return open(ctx, at)
		}
	}
	return false
}

// open says whether a server takes connections.
func open(ctx context.Context, at netip.Addr) bool {
	d := net.Dialer{Timeout: asking.Timeout}
	conn, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(at, postgresPort).String())
	return err == nil && conn.Close() == nil
}
