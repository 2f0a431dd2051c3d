package container

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
)

// ErrSubnetTaken says that another network of the engine's has addresses of the subnet.
var ErrSubnetTaken = errors.New("its subnet is another network's")

// Network is a network to keep.
type Network struct {
	// Name is unique in the plane; Group is whose it is.
	Name  string `json:"name"`
	Group string `json:"group"`
	// Subnet of it; its first address is the machine's.
	Subnet netip.Prefix `json:"subnet"`
	// Bridge is the machine's interface, at most 15 characters.
	Bridge string `json:"bridge"`
	// Internal leads nowhere else.
	Internal bool `json:"internal"`
}

// Machine is the machine's own address in a network.
func (n Network) Machine() netip.Addr { return n.Subnet.Addr().Next() }

// Thing is what the engine calls a network of this plane; links name it so.
func (e *Engine) Thing(network string) string { return e.thing(network) }

// Network makes a network as described. One of that name that is described otherwise is refused: what is in it stands.
func (e *Engine) Network(ctx context.Context, n Network) (changed bool, err error) {
	have, err := e.docker.NetworkInspect(ctx, e.thing(n.Name), network.InspectOptions{})
	switch {
	case err == nil && have.Labels[labelPlane] == e.plane && have.Labels[labelSpec] == digest(n):
		return false, nil
	case err == nil:
		return false, fmt.Errorf("there is a network %s that is none of this plane, or another than it should be: take it away with docker network rm", have.Name)
	case !errdefs.IsNotFound(err):
		return false, fmt.Errorf("look for the network %s: %w", n.Name, err)
	}
	no := false
	_, err = e.docker.NetworkCreate(ctx, e.thing(n.Name), network.CreateOptions{
		Driver: "bridge", Internal: n.Internal, EnableIPv6: &no, Labels: e.labels(n.Group, n.Name, n),
		IPAM:    &network.IPAM{Config: []network.IPAMConfig{{Subnet: n.Subnet.String(), Gateway: n.Machine().String()}}},
		Options: map[string]string{"com.docker.network.bridge.name": n.Bridge},
	})
	if err != nil && strings.Contains(err.Error(), "overlaps") {
		// The engine has no kind of error for it.
		err = fmt.Errorf("%w: %w", ErrSubnetTaken, err)
	}
	if err != nil {
		return true, fmt.Errorf("make the network %s (%s): %w", n.Name, n.Subnet, err)
	}
	return true, nil
}

// Join puts a running container into one more network, at an address.
func (e *Engine) Join(ctx context.Context, name string, l Link) (changed bool, err error) {
	have, err := e.find(ctx, name)
	if err != nil {
		return false, err
	}
	if have == nil {
		return false, fmt.Errorf("there is no container of %s to put into the network %s", name, l.Network)
	}
	if at := have.NetworkSettings.Networks[l.Network]; at != nil {
		if at.IPAddress == l.Address.String() || at.IPAMConfig != nil && at.IPAMConfig.IPv4Address == l.Address.String() {
			return false, nil
		}
		if err := e.docker.NetworkDisconnect(ctx, l.Network, have.ID, true); err != nil {
			return true, err
		}
	}
	if err := e.docker.NetworkConnect(ctx, l.Network, have.ID, endpoint(l)); err != nil {
		return true, fmt.Errorf("connect %s to the network %s: %w", name, l.Network, err)
	}
	return true, nil
}

// RemoveNetworks removes the networks of a group, and takes whoever joined them out first. Containers of the group are gone.
func (e *Engine) RemoveNetworks(ctx context.Context, group string) (changed bool, err error) {
	all, err := e.docker.NetworkList(ctx, network.ListOptions{Filters: e.mine(labelGroup + "=" + group)})
	if err != nil {
		return false, fmt.Errorf("ask the engine for networks: %w", err)
	}
	for _, n := range all {
		changed = true
		in, err := e.docker.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("network", n.ID))})
		if err != nil {
			return changed, err
		}
		for _, c := range in {
			if err := e.docker.NetworkDisconnect(ctx, n.ID, c.ID, true); err != nil && !errdefs.IsNotFound(err) {
				return changed, fmt.Errorf("take a container out of the network %s: %w", n.Name, err)
			}
		}
		if err := e.docker.NetworkRemove(ctx, n.ID); err != nil && !errdefs.IsNotFound(err) {
			return changed, fmt.Errorf("remove the network %s: %w", n.Name, err)
		}
	}
	return changed, nil
}

// Left are the names of containers and networks that still carry the plane's label, of one group or all.
func (e *Engine) Left(ctx context.Context, group string) ([]string, error) {
	args := e.mine()
	if group != "" {
		args = e.mine(labelGroup + "=" + group)
	}
	containers, err := e.docker.ContainerList(ctx, container.ListOptions{All: true, Filters: args})
	networks, err2 := e.docker.NetworkList(ctx, network.ListOptions{Filters: args})
	var out []string
	for _, c := range containers {
		out = append(out, "container "+c.Labels[labelName])
	}
	for _, n := range networks {
		out = append(out, "network "+n.Labels[labelName])
	}
	return out, errors.Join(err, err2)
}
