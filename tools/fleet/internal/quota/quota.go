// Package quota says which of AWS's quotas a number of tenants meets, in which order, and how long a rollout takes under its rates. It
// counts what the stacks hold as their templates say it, and relies on a table for the quotas (deploy/aws).
package quota

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"a3os.app/deploy/aws"
	"a3os.app/deploy/blueprint"
)

// Limit is one quota beside what tenants take of it.
type Limit struct {
	Service string `json:"service"`
	Quota   string `json:"quota"`
	Code    string `json:"code,omitempty"`
	Default int    `json:"default"`
	// PerTenant is what one tenant takes, Plane what the plane itself does.
	PerTenant float64 `json:"per_tenant"`
	Plane     float64 `json:"plane"`
	// Changing is what is taken beside that while a release is rolled out: a task starts before the one ends that it takes the place of.
	Changing float64 `json:"changing"`
	Needed   int     `json:"needed"`
	// Carries is how many tenants the default is enough for.
	Carries int  `json:"carries_tenants"`
	Met     bool `json:"met"`
	// Ask is what to ask AWS for, 0 where there is nothing to ask; CarriesAsked is how far that takes.
	Ask          int    `json:"ask_for,omitempty"`
	CarriesAsked int    `json:"carries_tenants_when_granted,omitempty"`
	Next         string `json:"next,omitempty"`
	Source       string `json:"source"`
}

// Step is one kind of call of a rollout under its rate.
type Step struct {
	Quota   string  `json:"quota"`
	Calls   int     `json:"calls"`
	PerSec  int     `json:"calls_per_second"`
	Seconds float64 `json:"seconds"`
	Source  string  `json:"source"`
}

// Plan is what a number of tenants meets.
type Plan struct {
	Tenants int    `json:"tenants"`
	Tier    string `json:"tier"`
	// Limits in the order in which a growing fleet meets them.
	Limits []Limit `json:"limits"`
	// Rollout is what a new release for all tenants waits for; its steps overlap, so that the longest is its least time.
	Rollout []Step `json:"rollout"`
	// Costs are what it costs; nil where nobody asked (Price).
	Costs *Costs `json:"costs,omitempty"`
}

// bounds says of which quota each type of resource takes one. A type without any has no published quota that grows with tenants.
var bounds = map[string][][2]string{
	"AWS::KMS::Key": {{"kms", "KMS keys (customer managed)"}},
	// A namespace with names in DNS has a zone of its own.
	"AWS::ServiceDiscovery::PrivateDnsNamespace": {{"cloudmap", "Namespaces per Region"}, {"route53", "Hosted zones per account"}},
	"AWS::SecretsManager::Secret":                {{"secretsmanager", "Secrets per Region"}},
	"AWS::S3::Bucket":                            {{"s3", "General purpose buckets per account"}},
	"AWS::RDS::DBInstance":                       {{"rds", "DB instances"}},
	"AWS::IAM::Role":                             {{"iam", "Roles per account"}},
	"AWS::IAM::ManagedPolicy":                    {{"iam", "Customer managed policies per account"}},
	"AWS::Logs::LogGroup":                        {{"logs", "Log groups"}},
	"AWS::EC2::SecurityGroup":                    {{"vpc", "VPC security groups per Region"}},
	"AWS::ECS::Service":                          {{"ecs", "Services per cluster"}},
	// A family for each, whose quota is of revisions; services of a namespace are few; AWS publishes no number of queues or alarms.
	"AWS::ECS::TaskDefinition": nil, "AWS::ServiceDiscovery::Service": nil, "AWS::SQS::Queue": nil, "AWS::CloudWatch::Alarm": nil, "AWS::SNS::Topic": nil,
	// Parts of what is counted.
	"AWS::SQS::QueuePolicy": nil, "AWS::S3::BucketPolicy": nil, "AWS::SecretsManager::ResourcePolicy": nil, "AWS::EC2::SecurityGroupIngress": nil, "AWS::EC2::SecurityGroupEgress": nil,
	// A plane has a handful, however many tenants.
	"AWS::EC2::VPC": nil, "AWS::EC2::Subnet": nil, "AWS::EC2::InternetGateway": nil, "AWS::EC2::VPCGatewayAttachment": nil, "AWS::EC2::RouteTable": nil, "AWS::EC2::Route": nil,
	"AWS::EC2::SubnetRouteTableAssociation": nil, "AWS::EC2::EIP": nil, "AWS::EC2::NatGateway": nil, "AWS::EC2::VPCEndpoint": nil, "AWS::RDS::DBSubnetGroup": nil, "AWS::RDS::DBParameterGroup": nil, "AWS::ECS::Cluster": nil,
	"AWS::ECR::Repository": nil, "AWS::CertificateManager::Certificate": nil, "AWS::ElasticLoadBalancingV2::LoadBalancer": nil, "AWS::ElasticLoadBalancingV2::TargetGroup": nil,
	"AWS::ElasticLoadBalancingV2::Listener": nil,
	// Names within a zone, and what a load balancer is offered by: none has a quota that a plane meets.
	"AWS::Route53::RecordSet": nil, "AWS::EC2::VPCEndpointService": nil, "AWS::EC2::VPCEndpointServicePermissions": nil,
	"AWS::Route53::HostedZone": {{"route53", "Hosted zones per account"}},
}

var (
	// endpoints stand in one network: the plane's has one for each tenant with an account to itself.
	endpoints = [2]string{"vpc", "Interface and GWLB endpoints per VPC"}
	// What stands in a network has an interface, or one in each zone; all may come to stand in one zone.
	interfaces = [2]string{"vpc", "Network interfaces per Region (enforced per AZ)"}
	usage      = [2]string{"vpc", "Network Address Usage per VPC"}
	// storage is of all disks of database servers, which are counted as they are made: each grows by itself to ten times that at most.
	storage = [2]string{"rds", "Total storage GB (RDS, not Aurora)"}
	vcpu    = [2]string{"fargate", "Fargate On-Demand vCPU resource count"}
	stacks  = [2]string{"cloudformation", "Stacks per Region"}
)

// stands says how many interfaces a resource has in the network, and how many addresses each counts as.
// https://docs.aws.amazon.com/vpc/latest/userguide/network-address-usage.html
func stands(r Resource) (n, each float64) {
	const ofAService, ofAWS = 1, 6
	switch {
	case r.Type == "AWS::ECS::Service":
		return 1, ofAService
	case r.Class != "" && r.Standby:
		return 2, ofAService
	case r.Class != "":
		return 1, ofAService
	case r.Interface, r.Type == "AWS::ElasticLoadBalancingV2::LoadBalancer":
		return float64(r.Zones), ofAWS
	case r.Type == "AWS::EC2::NatGateway":
		return 1, ofAWS
	}
	return 0, 0
}

// steps are the kinds of calls that a release takes for a tenant, by their rates: of each a call for every resource of a type in the tenant's stack, and so
// many besides. The migration is registered by the stack, and registered once more and launched as what is run to its end.
var steps = []struct {
	rate    [2]string
	of      string
	besides int
}{
	{[2]string{"ecs", "API: task definition modify - sustained"}, "AWS::ECS::TaskDefinition", 1},
	{[2]string{"ecs", "API: service modify actions - sustained"}, "AWS::ECS::Service", 0},
	{[2]string{"fargate", "Fargate On-Demand sustained launch rate"}, "AWS::ECS::Service", 1},
}

// Make plans for so many tenants of a tier, `database`, `dedicated` or, of what these take of the plane's own account, `account`, of which a rollout changes
// atOnce at a time.
func Make(quotas []aws.Quota, tenants int, tier string, atOnce int) (*Plan, error) {
	const most = 1_000_000
	if tenants < 1 || tenants > most {
		return nil, fmt.Errorf("--tenants is %d: it is from 1 to %d", tenants, most)
	}
	if atOnce < 1 || atOnce > most {
		return nil, fmt.Errorf("--max-parallel is %d: it is how many tenants a rollout changes at once, 1 or more", atOnce)
	}
	if !slices.Contains([]string{database, dedicated, account}, tier) {
		return nil, fmt.Errorf("--tier is %q: it is database, dedicated or account", tier)
	}
	set, err := blueprint.AccessOS()
	if err != nil {
		return nil, err
	}
	control, err := blueprint.Plane()
	if err != nil {
		return nil, err
	}
	table := map[[2]string]aws.Quota{}
	for _, q := range quotas {
		table[[2]string{q.Service, q.Name}] = q
	}
	resources, err := Stack(set, tier)
	if err != nil {
		return nil, err
	}
	planes, err := Stack(control, dedicated)
	if err != nil {
		return nil, err
	}
	each, err := take(resources)
	if err != nil {
		return nil, err
	}
	plane, err := take(planes)
	if err != nil {
		return nil, err
	}
	p := &Plan{Tenants: tenants, Tier: tier}
	if tier == database {
		l, err := shared(control, planes, tenants)
		if err != nil {
			return nil, err
		}
		p.Limits = append(p.Limits, l)
	}
	for key, per := range each {
		q, err := find(table, key)
		if err != nil {
			return nil, err
		}
		beside := 0.0
		if key == vcpu {
			// The plane's own set is changed at another time than tenants are.
			beside = max(changing(resources)*float64(atOnce), changing(planes))
		}
		l, err := limit(q, per, plane[key], beside, tenants)
		if err != nil {
			return nil, err
		}
		p.Limits = append(p.Limits, l)
	}
	slices.SortFunc(p.Limits, func(a, b Limit) int {
		return cmp.Or(cmp.Compare(a.Carries, b.Carries), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Quota, b.Quota))
	})
	if tier == account {
		// Rates are each account's own.
		tenants = 1
		if resources, err = Stack(set, inItsAccount); err != nil {
			return nil, err
		}
	}
	p.Rollout, err = rollout(table, resources, tenants)
	return p, err
}

// take is what one stack takes of each quota.
func take(stack []Resource) (map[[2]string]float64, error) {
	taken := map[[2]string]float64{stacks: 1}
	for _, r := range stack {
		keys, ok := bounds[r.Type]
		if !ok {
			return nil, fmt.Errorf("no quota is named for %s of the stack: add it to bounds, with nil where AWS publishes none", r.Type)
		}
		for _, key := range keys {
			taken[key]++
		}
		if r.Interface {
			taken[endpoints]++
		}
		if n, addresses := stands(r); n > 0 {
			taken[interfaces] += n
			taken[usage] += n * addresses
		}
		if r.Class != "" {
			taken[storage] += r.GB
		}
		if r.VCPU > 0 {
			taken[vcpu] += r.VCPU
		}
	}
	return taken, nil
}

// changing is how many vCPUs the change of a set takes beside what runs: its services' tasks once more, as a deployment keeps each until another serves in its place,
// and what is run to its end before, the migration.
func changing(stack []Resource) (out float64) {
	once := 0.0
	for _, r := range stack {
		out += r.VCPU
		once = max(once, r.Once)
	}
	return out + once
}

// memory is how many GiB of a class of database servers RDS counts, which is less than the class has by what RDS and the system keep: some 16 of 256.
// https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/CHAP_Limits.html#RDS_Limits.MaxConnections
var memory = map[string]float64{"db.t4g.medium": 4 * 15. / 16}

// connections are the most that RDS gives a PostgreSQL server of a class: LEAST(DBInstanceClassMemory/9531392, 5000).
func connections(class string) (float64, error) {
	gib, ok := memory[class]
	if !ok {
		return 0, fmt.Errorf("the memory of a database server of class %q isn't known: add it to memory", class)
	}
	return min(math.Floor(gib*(1<<30)/9531392), 5000), nil
}

// Of a shared server's connections a tenant takes what a plane elsewhere reckons one with: 1,500 for a hundred. It holds 11 or 12 at rest. RDS and superusers keep five.
const (
	connectionsOfATenant = 15
	keptConnections      = 5
	connectionsSource    = "https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/CHAP_Limits.html#RDS_Limits.MaxConnections"
)

// shared is how many tenants the plane's database server carries, which is the one for all of tier `database` and the registry's besides: there is no second.
func shared(control *blueprint.Blueprint, plane []Resource, tenants int) (Limit, error) {
	own := 0
	for _, r := range control.Database.Roles {
		own += r.Connections
	}
	for _, r := range plane {
		if r.Class == "" {
			continue
		}
		most, err := connections(r.Class)
		if err != nil {
			return Limit{}, err
		}
		l := Limit{Service: "rds", Quota: "Connections of the plane's one shared server, " + r.Class, Default: int(most), PerTenant: connectionsOfATenant, Plane: float64(own + keptConnections), Source: connectionsSource}
		l.Needed = own + keptConnections + connectionsOfATenant*tenants
		l.Carries = max(0, (l.Default-own-keptConnections)/connectionsOfATenant)
		if l.Met = l.Needed > l.Default; l.Met {
			l.Next = "no quota of AWS's: give the rest servers of their own, tier dedicated, or another plane"
		}
		return l, nil
	}
	return Limit{}, fmt.Errorf("the plane's stack has no database server")
}

// Shared is how many tenants of tier database a plane carries.
func Shared() (int, error) {
	control, err := blueprint.Plane()
	if err != nil {
		return 0, err
	}
	plane, err := Stack(control, dedicated)
	if err != nil {
		return 0, err
	}
	l, err := shared(control, plane, 1)
	return l.Carries, err
}

func find(table map[[2]string]aws.Quota, key [2]string) (aws.Quota, error) {
	q, ok := table[key]
	if !ok {
		return q, fmt.Errorf("the table of quotas has no %q of %s, which the stack takes of: add its line", key[1], key[0])
	}
	return q, nil
}

func limit(q aws.Quota, per, plane, changing float64, tenants int) (Limit, error) {
	most, err := q.Count()
	if err != nil {
		return Limit{}, err
	}
	carries := func(n int) int { return max(0, int(math.Floor((float64(n)-plane-changing)/per))) }
	l := Limit{Service: q.Service, Quota: q.Name, Code: q.Code, Default: most, PerTenant: per, Plane: plane, Changing: changing, Needed: int(math.Ceil(plane + changing + per*float64(tenants))),
		Carries: carries(most), Source: q.Source}
	l.Met = l.Needed > most
	switch {
	case !l.Met:
	case !q.CanGrow():
		l.Next = "it can't be raised: another account, cluster or Region"
	case q.Ceiling() > 0 && q.Ceiling() < l.Needed:
		l.Ask, l.CarriesAsked, l.Next = q.Ceiling(), carries(q.Ceiling()), "more is not published as granted: another account for the rest"
	default:
		l.Ask, l.CarriesAsked = l.Needed, tenants
	}
	return l, nil
}

// rollout is what a release for so many tenants takes, of each of whose stacks these are the resources.
func rollout(table map[[2]string]aws.Quota, stack []Resource, tenants int) ([]Step, error) {
	var all []Step
	for _, s := range steps {
		calls := s.besides
		for _, r := range stack {
			if r.Type == s.of {
				calls++
			}
		}
		calls *= tenants
		q, err := find(table, s.rate)
		if err != nil {
			return nil, err
		}
		r, err := q.PerSecond()
		if err != nil {
			return nil, err
		}
		all = append(all, Step{Quota: q.Service + ": " + q.Name, Calls: calls, PerSec: r, Seconds: float64(calls) / float64(r), Source: q.Source})
	}
	return all, nil
}

// Longest is the least time of a rollout.
func (p *Plan) Longest() time.Duration {
	var most float64
	for _, s := range p.Rollout {
		most = max(most, s.Seconds)
	}
	return time.Duration(most * float64(time.Second))
}
