package isolation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// Dial connects to an address from where a component is.
type Dial func(ctx context.Context, address string) error

// Closed is an address of the platform's own that no set reaches.
type Closed struct{ What, Address string }

// dialWithin is more than an answer on one machine takes; what is dropped on the way takes all of it.
const dialWithin = time.Second

// FromHere dials from this process's own network.
func FromHere(ctx context.Context, address string) error {
	d := net.Dialer{Timeout: dialWithin}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// networks are the addresses of another set, called from the network of each component. On a platform where components stand in the
// machine's own network nothing is tried: there is no such wall.
func (w *World) networks(from, at *Set) []attempt {
	var out []attempt
	for _, c := range from.Components {
		if c.Dial == nil || len(at.Addresses) == 0 {
			continue
		}
		out = append(out, attempt{wall: wallNetwork, from: from.Name() + "/" + c.Name, at: "network of " + at.Name(),
			what: fmt.Sprintf("connect to its %d addresses", len(at.Addresses)), ask: dialAll(c.Dial, at.Addresses),
			control: &control{what: "a component of that set, and each address answers; from here those of the own set do",
				ask: both(dialEach(at.Components[0].Dial, at.Addresses), own(from, c))}})
	}
	return out
}

// own is that a component's network can be called from at all: its own set answers.
func own(from *Set, c *Component) ask { return dialEach(c.Dial, from.Addresses) }

// platformNetwork are the platform's own servers, and the machine itself, called from the network of each component.
func (w *World) platformNetwork(from *Set) []attempt {
	var closed []string
	for _, c := range w.Closed {
		closed = append(closed, c.Address)
	}
	var out []attempt
	for _, c := range from.Components {
		if c.Dial == nil {
			continue
		}
		if len(closed) > 0 {
			out = append(out, attempt{wall: wallNetwork, from: from.Name() + "/" + c.Name, at: "the plane's own servers",
				what: fmt.Sprintf("connect to %d addresses, the registry's database among them", len(closed)), ask: dialAll(c.Dial, closed),
				control: &control{what: "the machine, and each address answers; from here those of the own set do", ask: both(dialEach(FromHere, closed), own(from, c))}})
		}
		if len(w.Machine) > 0 {
			out = append(out, w.machineFrom(from, c))
		}
	}
	return out
}

// machineFrom listens on all addresses of the machine for as long as a component tries them.
func (w *World) machineFrom(from *Set, c *Component) attempt {
	listening := func(dial Dial, all func(Dial, []string) ask) ask {
		return func(ctx context.Context) answer {
			var lc net.ListenConfig
			l, err := lc.Listen(ctx, "tcp4", "0.0.0.0:0")
			if err != nil {
				return unclearWith("listen on the machine: %v", err)
			}
			defer l.Close()
			port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
			var addresses []string
			for _, host := range w.Machine {
				addresses = append(addresses, net.JoinHostPort(host, port))
			}
			return all(dial, addresses)(ctx)
		}
	}
	return attempt{wall: wallNetwork, from: from.Name() + "/" + c.Name, at: "the machine", what: fmt.Sprintf("connect to what listens on all of its addresses, at %d of them", len(w.Machine)),
		ask: listening(c.Dial, dialAll), control: &control{what: "the machine itself, and each address answers; from here those of the own set do", ask: both(listening(FromHere, dialEach), own(from, c))}}
}

// dialAll connects to every address at once, and is refused where each call is lost on its way. One that was not made, as from a container that
// ended meanwhile, says nothing.
func dialAll(dial Dial, addresses []string) ask {
	return func(ctx context.Context) answer {
		errs := dialTogether(ctx, dial, addresses)
		for i, err := range errs {
			switch {
			case err == nil:
				return openedWith("%s answers", addresses[i])
			case errors.Is(err, syscall.ECONNREFUSED):
				return unclearWith("%s is reached, and nothing listens there", addresses[i])
			case ctx.Err() != nil || !lost(err):
				return unclearWith("%s: %v", addresses[i], err)
			}
		}
		return refusedWith("%d addresses, none is reached", len(addresses))
	}
}

// lost says that nothing answered a call, or that there is no way there.
func lost(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout() || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}

// dialEach is the control: every address answers.
func dialEach(dial Dial, addresses []string) ask {
	return func(ctx context.Context) answer {
		for i, err := range dialTogether(ctx, dial, addresses) {
			if err != nil {
				return unclearWith("%s: %v", addresses[i], err)
			}
		}
		return openedWith("%d addresses answer", len(addresses))
	}
}

func dialTogether(ctx context.Context, dial Dial, addresses []string) []error {
	errs := make([]error, len(addresses))
	var all errgroup.Group
	for i, a := range addresses {
		all.Go(func() error {
			errs[i] = dial(ctx, a)
			return nil
		})
	}
	_ = all.Wait() // each has its own
	return errs
}
