package quota

import (
	"fmt"
	"maps"
	"slices"

	"a3os.app/deploy/aws"
	"a3os.app/deploy/blueprint"
)

// Charge is one thing that is paid for, whether it is used or not.
type Charge struct {
	Item   string  `json:"item"`
	Count  float64 `json:"count"`
	Each   float64 `json:"usd_each_a_month"`
	USD    float64 `json:"usd_a_month"`
	Region string  `json:"region"`
	Date   string  `json:"date"`
	Source string  `json:"source"`
}

// Cost is what a stack costs a month.
type Cost struct {
	Charges []Charge `json:"charges"`
	USD     float64  `json:"usd_a_month"`
}

// Costs are what is paid a month at list prices, for what is there. What is paid by use comes on top: requests, what logs, objects, backups and
// messages hold, a secret for each credential of an integration, keys' material of years before, and what goes over the network.
type Costs struct {
	// Tenant is one of each tier, by its name; Plane is what is paid once.
	Tenant map[string]Cost `json:"tenant"`
	Plane  Cost            `json:"plane"`
}

// charged says what of a resource is paid for, by the item of the table of prices.
func charged(r Resource) map[string]float64 {
	switch r.Type {
	case "AWS::ECS::Service":
		return map[string]float64{"fargate vcpu": r.VCPU, "fargate gb": r.GB}
	case "AWS::RDS::DBInstance":
		n := 1.0
		if r.Standby {
			n = 2
		}
		// RDS keeps the first user's password in a secret.
		return map[string]float64{"rds " + r.Class: n, "rds gp3 gb": n * r.GB, "secret": 1}
	case "AWS::KMS::Key":
		return map[string]float64{"kms key": 1}
	case "AWS::SecretsManager::Secret":
		return map[string]float64{"secret": 1}
	case "AWS::ServiceDiscovery::PrivateDnsNamespace", "AWS::Route53::HostedZone":
		return map[string]float64{"hosted zone": 1}
	case "AWS::CloudWatch::Alarm":
		return map[string]float64{"alarm": 1}
	case "AWS::EC2::NatGateway":
		return map[string]float64{"nat gateway": 1}
	case "AWS::EC2::EIP":
		return map[string]float64{"public address": 1}
	case "AWS::EC2::VPCEndpoint":
		if r.Interface {
			return map[string]float64{"interface endpoint": float64(r.Zones)}
		}
	case "AWS::ElasticLoadBalancingV2::LoadBalancer":
		if r.Public {
			return map[string]float64{"load balancer": 1, "public address": float64(r.Zones)}
		}
		return map[string]float64{"load balancer": 1}
	}
	return nil
}

// Price says what tenants and the plane cost.
func Price(prices map[string]aws.Price) (*Costs, error) {
	set, err := blueprint.AccessOS()
	if err != nil {
		return nil, err
	}
	control, err := blueprint.Plane()
	if err != nil {
		return nil, err
	}
	plane, err := Stack(control, dedicated)
	if err != nil {
		return nil, err
	}
	c := &Costs{Tenant: map[string]Cost{}}
	if c.Plane, err = cost(prices, items(plane)); err != nil {
		return nil, err
	}
	for _, tier := range []string{database, dedicated, account} {
		resources, err := Stack(set, tier)
		if err != nil {
			return nil, err
		}
		if tier == account {
			// It pays for a network of its own, and for both ends of what joins that to the plane's.
			own, err := Stack(set, inItsAccount)
			if err != nil {
				return nil, err
			}
			resources = append(resources, own...)
		}
		counted := items(resources)
		if tier == database {
			server, err := shared(control, plane, 1)
			if err != nil {
				return nil, err
			}
			part := 1 / float64(server.Carries)
			for _, r := range plane {
				if r.Class != "" {
					for item, n := range charged(r) {
						counted[item] += n * part
					}
				}
			}
		}
		if c.Tenant[tier], err = cost(prices, counted); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Templates says what the stacks of templates cost a month.
func Templates(prices map[string]aws.Price, templates ...[]byte) (Cost, error) {
	var all []Resource
	for _, text := range templates {
		resources, err := read(text)
		if err != nil {
			return Cost{}, err
		}
		all = append(all, resources...)
	}
	return cost(prices, items(all))
}

func items(resources []Resource) map[string]float64 {
	out := map[string]float64{}
	for _, r := range resources {
		for item, n := range charged(r) {
			out[item] += n
		}
	}
	return out
}

func cost(prices map[string]aws.Price, counted map[string]float64) (Cost, error) {
	var c Cost
	for _, item := range slices.Sorted(maps.Keys(counted)) {
		p, ok := prices[item]
		if !ok {
			return c, fmt.Errorf("the table of prices has no %q, which a stack has: add its line", item)
		}
		charge := Charge{Item: item, Count: counted[item], Each: p.Month(), USD: counted[item] * p.Month(), Region: p.Region, Date: p.Date, Source: p.Source}
		c.Charges = append(c.Charges, charge)
		c.USD += charge.USD
	}
	return c, nil
}
