// Messages that flood a network, in SimGrid's own language: one JSON line of what came out and what it took.
//
// Usage: flood_simgrid NETWORK SECONDS
//
// NETWORK is a file of `measure network`. After SECONDS of processor time the run ends and tells what it did until then.
//
// The same model as in flood_simgrid.py: a host, an actor and a mailbox for each node, whose actor is the mailbox's
// receiver, so that a message is on its way as soon as it is sent and the sender waits for nothing; a star of links with
// a latency each and so much bandwidth that nothing is shared; CM02, the network model with the least to compute,
// without factors and cross-traffic. Actors are coroutines here and no threads: that allows as many as the memory holds.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <simgrid/s4u.hpp>
#include <simgrid/version.h>
#include <string>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <vector>

namespace s4u = simgrid::s4u;

constexpr unsigned DEGREE = 8;
constexpr unsigned LOOK_EVERY = 256;
constexpr double END_S = 600;

struct Publication {
    uint32_t node;
    uint32_t at_us;
    uint64_t bit;
};

struct Network {
    uint32_t nodes, messages;
    std::vector<uint32_t> access_us, neighbours;
    std::vector<Publication> publications;

    explicit Network(const char* path)
    {
        std::ifstream file(path, std::ios::binary);
        file.exceptions(std::ios::failbit | std::ios::badbit | std::ios::eofbit);
        const auto read = [&file](auto* into, size_t count) {
            file.read(reinterpret_cast<char*>(into), static_cast<std::streamsize>(count * sizeof *into));
        };
        read(&nodes, 1);
        read(&messages, 1);
        access_us.resize(nodes);
        neighbours.resize(size_t{DEGREE} * nodes);
        read(access_us.data(), access_us.size());
        read(neighbours.data(), neighbours.size());
        for (uint32_t message = 0; message < messages; message++) {
            uint32_t node_and_time[2];
            read(node_and_time, 2);
            publications.push_back({node_and_time[0], node_and_time[1], uint64_t{1} << message});
        }
        std::sort(publications.begin(), publications.end(),
                  [](const auto& one, const auto& other) { return one.at_us < other.at_us; });
    }
};

// A message on its way. Whoever receives it deletes it, and what SimGrid keeps of it with it: a detached message would
// stand in one list with all others that are on their way, and be looked for there.
struct Payload {
    uint64_t bit;
    uint32_t sender;
    s4u::CommPtr way;
};

static double processor_seconds()
{
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& time) { return time.tv_sec + time.tv_usec / 1e6; };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

static double clock_seconds()
{
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

class Flood {
    const Network network_;
    const double most_seconds_;
    std::vector<s4u::Host*> hosts_;
    std::vector<s4u::Mailbox*> mailboxes_;
    std::vector<uint64_t> seen_;
    uint64_t deliveries_ = 0, duplicates_ = 0, delivered_us_sum_ = 0;
    double started_ = 0, used_ = 0;

public:
    Flood(const char* path, double most_seconds) : network_(path), most_seconds_(most_seconds), seen_(network_.nodes) {}

    void build()
    {
        auto* zone = s4u::create_star_zone("world");
        const auto add_way = [zone](const std::string& name, double latency_s, s4u::Host* source, s4u::Host* target) {
            const auto* link = zone->create_link(name, 1e15)->set_latency(latency_s)->seal();
            zone->add_route(source ? source->get_netpoint() : nullptr, target ? target->get_netpoint() : nullptr,
                            nullptr, nullptr, {s4u::LinkInRoute(link)}, false);
        };
        for (uint32_t node = 0; node < network_.nodes; node++) {
            const auto name = std::to_string(node);
            auto* host = zone->create_host(name, 1e9);
            add_way("to " + name, network_.access_us[node] / 1e6, nullptr, host);
            add_way("from " + name, 0, host, nullptr);
            hosts_.push_back(host);
            mailboxes_.push_back(s4u::Mailbox::by_name(name));
        }
        zone->seal();
        for (uint32_t node = 0; node < network_.nodes; node++)
            s4u::Actor::create(std::to_string(node), hosts_[node], [this, node] { live(node); });
        s4u::Actor::create("publish", hosts_[0], [this] { publish(); });
    }

    void watch()
    {
        started_ = clock_seconds();
        used_ = processor_seconds();
    }

private:
    void live(uint32_t node)
    {
        auto* mailbox = mailboxes_[node];
        mailbox->set_receiver(s4u::Actor::self());
        while (true) {
            const auto message = mailbox->get_unique<Payload>();
            receive(node, message->bit, message->sender);
        }
    }

    void publish()
    {
        for (const auto& [node, at_us, bit] : network_.publications) {
            s4u::this_actor::sleep_until(at_us / 1e6);
            receive(node, bit, node);
        }
        s4u::this_actor::sleep_until(END_S);
        tell(true);
    }

    void receive(uint32_t node, uint64_t bit, uint32_t sender)
    {
        if (seen_[node] & bit) {
            duplicates_++;
        } else {
            seen_[node] |= bit;
            deliveries_++;
            delivered_us_sum_ += static_cast<uint64_t>(std::llround(s4u::Engine::get_clock() * 1e6));
            forward(node, bit, sender);
        }
        if ((deliveries_ + duplicates_) % LOOK_EVERY == 0 && processor_seconds() - used_ > most_seconds_)
            tell(false);
    }

    void forward(uint32_t node, uint64_t bit, uint32_t sender)
    {
        for (unsigned link = 0; link < DEGREE; link++) {
            const auto neighbour = network_.neighbours[size_t{node} * DEGREE + link];
            if (neighbour != sender) {
                auto* payload = new Payload{bit, node, nullptr};
                payload->way = mailboxes_[neighbour]->put_async(payload, 1);
            }
        }
    }

    [[noreturn]] void tell(bool complete)
    {
        const double wall_s = clock_seconds() - started_, processor_s = processor_seconds() - used_;
        rusage usage{};
        getrusage(RUSAGE_SELF, &usage);
        std::printf("{\"simulator\": \"simgrid %d.%d in C++\", \"nodes\": %u, \"messages\": %u, \"events\": %lu, "
                    "\"deliveries\": %lu, \"duplicates\": %lu, \"delivered_us_sum\": %lu, \"complete\": %s, "
                    "\"wall_s\": %.6f, \"processor_s\": %.6f, \"peak_memory_bytes\": %lu}\n",
                    SIMGRID_VERSION_MAJOR, SIMGRID_VERSION_MINOR, network_.nodes, network_.messages,
                    deliveries_ + duplicates_, deliveries_, duplicates_, delivered_us_sum_,
                    complete ? "true" : "false", wall_s, processor_s, usage.ru_maxrss * 1024UL);
        std::fflush(stdout);
        // Ending thousands of actors one by one is no part of what is measured.
        _exit(0);
    }
};

int main(int count_given, char** arguments)
{
    if (count_given != 3) {
        std::fprintf(stderr, "usage: flood_simgrid NETWORK SECONDS\n");
        return 2;
    }
    // Stacks of 32 KiB without guard pages: a system has no room for two mappings for each of so many.
    std::vector<std::string> settings{"flood",
                                      "--log=root.thres:error",
                                      "--cfg=contexts/factory:raw",
                                      "--cfg=contexts/stack-size:32",
                                      "--cfg=contexts/guard-size:0",
                                      "--cfg=network/model:CM02",
                                      "--cfg=network/crosstraffic:0",
                                      "--cfg=network/latency-factor:1",
                                      "--cfg=network/bandwidth-factor:1",
                                      "--cfg=network/TCP-gamma:0"};
    std::vector<char*> pointers;
    for (auto& setting : settings)
        pointers.push_back(setting.data());
    int count = static_cast<int>(pointers.size());
    pointers.push_back(nullptr);
    s4u::Engine engine(&count, pointers.data());
    Flood flood(arguments[1], std::atof(arguments[2]));
    flood.build();
    flood.watch();
    engine.run();
    return 1;
}
