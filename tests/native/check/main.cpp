// Runs every CPU kernel of every instruction set level that this processor has, forward and backward, in every dtype and at odd
// sizes, against float64 and for several numbers of threads; the noise against known answers and known bits. No Python.
//   native_check noise_bits.txt      says what it ran; exit status 1 if anything is wrong
//   native_check --bits              prints the noise's hashes (of the first level, which all others must share)
#include <cmath>
#include <cstdio>
#include <fstream>

#include "check.h"
#include "cpu/threads/team.h"

namespace {

using namespace check;

struct Tolerance {
  DType dtype;
  const char* name;
  double relative, absolute;  // the latter of the largest magnitude
};
const Tolerance kTolerances[] = {
    {DType::f32, "float32", 1e-4, 1e-5}, {DType::f16, "float16", 3e-3, 5e-3}, {DType::bf16, "bfloat16", 3e-2, 5e-2}};

std::string difference(const Tensor& got, const Tensor& want, const Tolerance& t) {
  double largest = 0.1;
  for (int64_t i = 0; i < want.view().numel; ++i) largest = std::fmax(largest, std::fabs(want.get(i)));
  for (int64_t i = 0; i < want.view().numel; ++i) {
    const double a = got.get(i), b = want.get(i);
    if (!(std::fabs(a - b) <= t.relative * std::fabs(b) + t.absolute * largest)) {
      return "element " + std::to_string(i) + " is " + std::to_string(a) + ", in float64 " + std::to_string(b);
    }
  }
  return got.guarded() ? "" : "memory beside the output was written";
}

bool same_bits(const Tensor& a, const Tensor& b) {
  for (int64_t i = 0; i < a.view().numel; ++i)
    if (std::memcmp(a.at(i), b.at(i), static_cast<size_t>(item_size(a.view().dtype))) != 0) return false;
  return true;
}

void check_case(const Case& one, const KernelTable* const* tables, int levels, std::vector<std::string>& problems, int& runs) {
  const Layout layouts[] = {Layout::dense, Layout::channels_last, Layout::gapped};
  for (const Tolerance& t : kTolerances) {
    const Run& exact = one.exact ? one.exact : one.run;
    const auto want = exact({t.dtype, DType::f64, tables[0], 1, Layout::dense});
    for (int level = 0; level < levels; ++level) {
      const Layout layout = layouts[(level + static_cast<int>(t.dtype)) % 3];
      std::vector<Tensor> first;
      for (Layout l : t.dtype == DType::f32 ? std::vector<Layout>(layouts, layouts + 3) : std::vector<Layout>{layout}) {
        const std::string where = one.name + ", " + tables[level]->isa + ", " + t.name + ", layout " + std::to_string(static_cast<int>(l));
        const auto got = one.run({t.dtype, t.dtype, tables[level], 1, l});
        const auto threaded = one.run({t.dtype, t.dtype, tables[level], 3, l});
        runs += 2;
        for (size_t k = 0; k < want.size(); ++k) {
          const std::string problem = difference(got[k], want[k], t);
          if (!problem.empty()) problems.push_back(where + ": output " + std::to_string(k) + ": " + problem);
          if (!same_bits(got[k], threaded[k])) problems.push_back(where + ": output " + std::to_string(k) + " differs on three threads");
        }
      }
    }
  }
}

void check_bits(const char* file, const KernelTable* const* tables, int levels, std::vector<std::string>& problems) {
  std::vector<std::string> known;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);)
    if (!line.empty() && line[0] != '#') known.push_back(line);
  if (known.empty()) problems.push_back(std::string(file) + " holds no hashes");
  for (int level = 0; level < levels; ++level) {
    const auto found = noise_bits(*tables[level]);
    for (size_t k = 0; k < found.size() || k < known.size(); ++k) {
      const std::string a = k < found.size() ? found[k] : "nothing", b = k < known.size() ? known[k] : "nothing";
      if (a != b) problems.push_back(std::string("noise, ") + tables[level]->isa + ": " + a + ", known: " + b);
    }
  }
}

}  // namespace

int main(int count, char** arguments) {
  const KernelTable* tables[4];
  const int levels = bdgf::available_kernels(tables);
  if (count != 2) return std::fprintf(stderr, "usage: native_check noise_bits.txt | --bits\n"), 2;
  if (std::string(arguments[1]) == "--bits") {
    for (const std::string& line : noise_bits(*tables[0])) std::printf("%s\n", line.c_str());
    return 0;
  }
  std::vector<std::string> problems;
  std::string names;
  for (int level = 0; level < levels; ++level) {
    check_functions(*tables[level], problems);
    names += std::string(level ? ", " : "") + tables[level]->isa;
  }
  check_threads(problems);
  check_bits(arguments[1], tables, levels, problems);
  int runs = 0, cases = 0;
  for (const auto& group : {scan_cases(), layer_cases(), map_cases(), noise_cases()})
    for (const Case& one : group) check_case(one, tables, levels, problems, runs), ++cases;
  for (const std::string& problem : problems) std::printf("WRONG  %s\n", problem.c_str());
  std::printf("native check: levels %s; threads from %s; %d cases, %d runs, %zu problems\n", names.c_str(), bdgf::thread_source(),
              cases, runs, problems.size());
  return problems.empty() ? 0 : 1;
}
